//! Who may call what: every RPC of identity, as everybody who should not.
use tonic::Request;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use weft_auth::{PRODUCT_HEADER, Policies, SERVICE_TOKEN_HEADER};
use weft_core::Reason;
use weft_testing::on_both_databases;

use crate::harness::{Node, OTHER_PRODUCT, PRODUCT, Session, World, reason};

on_both_databases! {
    every_rpc_lets_in_whom_it_should
}

/// What an empty request comes to. `None`: it is answered.
type Expected = Option<Reason>;

/// An RPC and what it says to nobody, an expired token, a token of another product, a service that is not listed,
/// and one that is.
const TABLE: &[(&str, [Expected; 5])] = &{
    use Reason::{IdentityProviderNotEnabled, InvalidArgument, PermissionDenied, ProductMismatch, Unauthenticated};
    // Public: everybody gets as far as the missing fields.
    let missing = [Some(InvalidArgument); 5];
    let unknown_token = [Some(Unauthenticated); 5];
    let user = [
        Some(Unauthenticated),
        Some(Unauthenticated),
        Some(ProductMismatch),
        Some(Unauthenticated),
        Some(Unauthenticated),
    ];
    let service = [Some(Unauthenticated), Some(Unauthenticated), Some(PermissionDenied), Some(PermissionDenied), None];
    let another_service = [service[0], service[1], service[2], service[3], Some(PermissionDenied)];
    [
        ("/weft.identity.v1.AuthService/Register", missing),
        // Neither a password nor a token: nothing that the product could take.
        ("/weft.identity.v1.AuthService/Login", [Some(IdentityProviderNotEnabled); 5]),
        ("/weft.identity.v1.AuthService/Refresh", unknown_token),
        ("/weft.identity.v1.AuthService/Logout", user),
        ("/weft.identity.v1.AuthService/GetMe", user),
        ("/weft.identity.v1.AdminService/ListUsers", user),
        ("/weft.identity.v1.AdminService/GetUser", user),
        ("/weft.identity.v1.AdminService/UpdateUser", user),
        ("/weft.identity.v1.PasswordService/ChangePassword", user),
        ("/weft.identity.v1.PasswordService/ForgotPassword", missing),
        ("/weft.identity.v1.PasswordService/ResetPassword", missing),
        ("/weft.identity.v1.ProfileService/GetProfile", user),
        ("/weft.identity.v1.ProfileService/UpdateProfile", user),
        ("/weft.identity.v1.SessionService/ListSessions", user),
        ("/weft.identity.v1.SessionService/EndSession", user),
        ("/weft.identity.v1.SessionService/LogoutAll", user),
        ("/weft.identity.v1.KeyService/GetJwks", [None; 5]),
        ("/weft.identity.v1.KeyService/ListRevocations", service),
        ("/weft.identity.v1.KeyService/ReportUse", service),
        ("/weft.identity.v1.ApiKeyService/CreateApiKey", user),
        ("/weft.identity.v1.ApiKeyService/ListApiKeys", user),
        ("/weft.identity.v1.ApiKeyService/UpdateApiKey", user),
        ("/weft.identity.v1.ApiKeyService/RevokeApiKey", user),
        ("/weft.identity.v1.AuditService/ListAuditEvents", user),
        ("/weft.identity.v1.AuditService/VerifyAudit", user),
        ("/weft.identity.v1.AuthService/ExchangeToken", unknown_token),
        ("/weft.identity.v1.EmailService/SendVerification", user),
        ("/weft.identity.v1.EmailService/VerifyEmail", missing),
        ("/weft.identity.v1.GitHubService/Disconnect", user),
        ("/weft.identity.v1.GitHubService/FinishConnect", user),
        ("/weft.identity.v1.GitHubService/GetConnectionStatus", user),
        ("/weft.identity.v1.GitHubService/GetGitHubToken", another_service),
        ("/weft.identity.v1.GitHubService/StartConnect", user),
        ("/weft.identity.v1.OidcService/FinishLogin", missing),
        ("/weft.identity.v1.OidcService/StartLogin", missing),
        ("/weft.identity.v1.OrganisationService/AcceptInvitation", user),
        ("/weft.identity.v1.OrganisationService/CreateInvitation", user),
        ("/weft.identity.v1.OrganisationService/CreateOrganisation", user),
        ("/weft.identity.v1.OrganisationService/DeleteOrganisation", user),
        ("/weft.identity.v1.OrganisationService/GetOrganisation", user),
        ("/weft.identity.v1.OrganisationService/ListInvitations", user),
        ("/weft.identity.v1.OrganisationService/ListMembers", user),
        ("/weft.identity.v1.OrganisationService/ListOrganisations", user),
        ("/weft.identity.v1.OrganisationService/RemoveMember", user),
        ("/weft.identity.v1.OrganisationService/RevokeInvitation", user),
        ("/weft.identity.v1.OrganisationService/UpdateMember", user),
        ("/weft.identity.v1.OrganisationService/UpdateOrganisation", user),
        ("/weft.identity.v1.PersonalDataService/EraseAccount", user),
        ("/weft.identity.v1.PersonalDataService/ExportData", user),
        ("/weft.identity.v1.SetupService/CompleteSetup", unknown_token),
        ("/weft.identity.v1.SsoService/ConfirmDomain", user),
        ("/weft.identity.v1.SsoService/DeleteConnection", user),
        ("/weft.identity.v1.SsoService/GetConnection", user),
        ("/weft.identity.v1.SsoService/PutConnection", user),
    ]
};

async fn every_rpc_lets_in_whom_it_should(world: &World) {
    let node = world.node().await;
    let expired = node.register("ana@example.com").await;
    world.pass(world.product().identity.access_ttl_s.unsigned_abs());
    let foreign = node.register_in(OTHER_PRODUCT, "ana@example.com", "some password").await.unwrap();
    let stranger = world.service("stranger").mint("identity");
    let gateway = world.service("gateway").mint("identity");

    let policies = Policies::of(weft_proto::descriptors()).unwrap();
    for path in policies.paths().filter(|path| path.starts_with("/weft.identity.")) {
        let (_, expected) =
            TABLE.iter().find(|(rpc, _)| *rpc == path).unwrap_or_else(|| panic!("{path} needs a row in this table"));
        let seen = [
            call(&node, path, &[]).await,
            call(&node, path, &[bearer(&expired)]).await,
            call(&node, path, &[bearer(&foreign)]).await,
            call(&node, path, &[(SERVICE_TOKEN_HEADER, stranger.clone())]).await,
            call(&node, path, &[(SERVICE_TOKEN_HEADER, gateway.clone())]).await,
        ];
        assert_eq!(seen, *expected, "{path}");
    }
    assert_eq!(call(&node, "/weft.identity.v1.AuthService/NoSuchRpc", &[]).await, Some(Reason::Unimplemented));
}

fn bearer(tokens: &Session) -> (&'static str, String) {
    ("authorization", format!("Bearer {}", tokens.access_token))
}

/// An empty request, which is one of every type.
async fn call(node: &Node, path: &str, headers: &[(&'static str, String)]) -> Expected {
    let mut request = Request::new(());
    request.metadata_mut().insert(PRODUCT_HEADER, PRODUCT.parse().unwrap());
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let mut grpc = Grpc::new(node.channel.clone());
    grpc.ready().await.unwrap();
    let answer = grpc.unary(request, path.parse().unwrap(), ProstCodec::<(), ()>::default()).await;
    answer.err().map(|status| reason(&status))
}
