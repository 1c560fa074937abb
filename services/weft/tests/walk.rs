//! Every RPC of the mesh, as everybody who should not call it.
//!
//! An RPC without a policy, without a row here or, where it is annotated, without a route fails the test. One caller
//! is missing because no RPC asks for it yet: a plan too low for a `feature`.
use std::collections::BTreeSet;
use std::time::Duration;

use prost_reflect::{DescriptorPool, Value};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use weft_auth::{SERVICE_TOKEN_HEADER, ServiceKey};
use weft_core::Reason;
use weft_testing::eventually;
use weft_testing::mesh::{Mesh, Options, SERVICE_SECRET};
use weft_testing::persona::{Client, Persona};

use crate::{WEFT, adiuva_with};

/// Who may call an RPC, stated a second time on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    /// Anybody.
    Public,
    /// Signed-in users.
    User,
    /// Administrators of the request's product.
    Admin,
    /// One of these services.
    Services(&'static [&'static str]),
}

const SERVICES: &[&str] =
    &["gateway", "identity", "billing", "storage", "orchestrator", "marketplace", "workspace", "outreach"];
const ASK_BILLING: &[&str] =
    &["gateway", "identity", "storage", "orchestrator", "marketplace", "workspace", "outreach"];
/// Services that do what costs credits.
const SPEND: &[&str] = &["orchestrator", "workspace", "outreach", "storage", "marketplace"];
/// Services that call models.
const USE: &[&str] = &["orchestrator", "workspace", "outreach"];

/// Every RPC: its path, who may call it.
const ROWS: &[(&str, Who)] = &[
    ("/weft.billing.v1.AccountService/AssignSeat", Who::Services(&["identity"])),
    ("/weft.billing.v1.AccountService/BatchGetAccounts", Who::Services(&["identity"])),
    ("/weft.billing.v1.AccountService/GetAccount", Who::Admin),
    ("/weft.billing.v1.AccountService/GetSeats", Who::Services(&["identity"])),
    ("/weft.billing.v1.AccountService/ReleaseSeat", Who::Services(&["identity"])),
    ("/weft.billing.v1.AccountService/UpdateAccount", Who::Admin),
    ("/weft.billing.v1.AnalyticsService/GetPlatformAnalytics", Who::Admin),
    ("/weft.billing.v1.AnalyticsService/GetUserAnalytics", Who::User),
    ("/weft.billing.v1.CatalogueService/CreatePlanVersion", Who::Admin),
    ("/weft.billing.v1.CatalogueService/ListMarketProducts", Who::Public),
    ("/weft.billing.v1.CatalogueService/ListPlans", Who::Admin),
    ("/weft.billing.v1.CatalogueService/MigrateSubscribers", Who::Admin),
    ("/weft.billing.v1.CatalogueService/UpdatePlan", Who::Admin),
    ("/weft.billing.v1.EntitlementService/CheckFeature", Who::Services(ASK_BILLING)),
    ("/weft.billing.v1.EntitlementService/CheckQuota", Who::Services(ASK_BILLING)),
    ("/weft.billing.v1.EntitlementService/GetEntitlements", Who::Services(ASK_BILLING)),
    ("/weft.billing.v1.EntitlementService/GetRateLimit", Who::Services(ASK_BILLING)),
    ("/weft.billing.v1.LedgerService/AdjustWallet", Who::Admin),
    ("/weft.billing.v1.LedgerService/GetWallet", Who::Admin),
    ("/weft.billing.v1.LedgerService/ListWalletTransactions", Who::Admin),
    ("/weft.billing.v1.LedgerService/VerifyLedger", Who::Admin),
    ("/weft.billing.v1.PersonalDataService/EraseAccount", Who::Services(&["identity"])),
    ("/weft.billing.v1.PersonalDataService/ExportAccount", Who::Services(&["identity"])),
    ("/weft.billing.v1.RevenueService/Charge", Who::Services(&["marketplace"])),
    ("/weft.billing.v1.RevenueService/GetEarnings", Who::Services(&["marketplace"])),
    ("/weft.billing.v1.RevenueService/ListRevenueEvents", Who::Services(&["marketplace"])),
    ("/weft.billing.v1.RevenueService/OpenDeveloperAccount", Who::Services(&["marketplace"])),
    ("/weft.billing.v1.RevenueService/PayDeveloper", Who::Services(&["marketplace"])),
    ("/weft.billing.v1.RevenueService/RefundSale", Who::Services(&["marketplace"])),
    ("/weft.billing.v1.SubscriptionService/CancelSubscription", Who::User),
    ("/weft.billing.v1.SubscriptionService/CreateCheckout", Who::User),
    ("/weft.billing.v1.SubscriptionService/CreatePortalSession", Who::User),
    ("/weft.billing.v1.SubscriptionService/GetSubscription", Who::User),
    ("/weft.billing.v1.SubscriptionService/ListInvoices", Who::User),
    ("/weft.billing.v1.SubscriptionService/ListPayments", Who::User),
    ("/weft.billing.v1.SubscriptionService/RefundPayment", Who::Admin),
    ("/weft.billing.v1.SubscriptionService/UpdateSubscription", Who::User),
    ("/weft.billing.v1.UsageService/BeginUsage", Who::Services(USE)),
    ("/weft.billing.v1.UsageService/CountDaily", Who::Services(USE)),
    ("/weft.billing.v1.UsageService/GetAccountUsage", Who::Admin),
    ("/weft.billing.v1.UsageService/GetDailyUsage", Who::User),
    ("/weft.billing.v1.UsageService/GetProductUsage", Who::Admin),
    ("/weft.billing.v1.UsageService/RecordActivity", Who::Services(SPEND)),
    ("/weft.billing.v1.UsageService/RecordUsage", Who::Services(USE)),
    ("/weft.billing.v1.WalletService/Debit", Who::Services(SPEND)),
    ("/weft.billing.v1.WalletService/GetBalance", Who::User),
    ("/weft.billing.v1.WalletService/GetStatement", Who::User),
    (
        "/weft.billing.v1.WalletService/Grant",
        Who::Services(&["identity", "orchestrator", "workspace", "outreach", "marketplace"]),
    ),
    ("/weft.billing.v1.WalletService/ListKeySpending", Who::Services(&["identity"])),
    ("/weft.billing.v1.WalletService/ListTransactions", Who::User),
    ("/weft.billing.v1.WalletService/MarkProgress", Who::Services(SPEND)),
    ("/weft.billing.v1.WalletService/Reserve", Who::Services(SPEND)),
    ("/weft.billing.v1.WalletService/Settle", Who::Services(SPEND)),
    ("/weft.billing.v1.WalletService/SpendCredits", Who::User),
    ("/weft.billing.v1.WalletService/Transfer", Who::Services(&["workspace", "outreach", "marketplace"])),
    ("/weft.billing.v1.WalletService/Void", Who::Services(SPEND)),
    ("/weft.billing.v1.WebhookService/ReceiveStripeEvent", Who::Public),
    ("/weft.identity.v1.AdminService/GetUser", Who::Admin),
    ("/weft.identity.v1.AdminService/ListUsers", Who::Admin),
    ("/weft.identity.v1.AdminService/UpdateUser", Who::Admin),
    ("/weft.identity.v1.ApiKeyService/CreateApiKey", Who::User),
    ("/weft.identity.v1.ApiKeyService/ListApiKeys", Who::User),
    ("/weft.identity.v1.ApiKeyService/RevokeApiKey", Who::User),
    ("/weft.identity.v1.ApiKeyService/UpdateApiKey", Who::User),
    ("/weft.identity.v1.AuditService/ListAuditEvents", Who::Admin),
    ("/weft.identity.v1.AuditService/VerifyAudit", Who::Admin),
    ("/weft.identity.v1.AuthService/ExchangeToken", Who::Public),
    ("/weft.identity.v1.AuthService/GetMe", Who::User),
    ("/weft.identity.v1.AuthService/Login", Who::Public),
    ("/weft.identity.v1.AuthService/Logout", Who::User),
    ("/weft.identity.v1.AuthService/Refresh", Who::Public),
    ("/weft.identity.v1.AuthService/Register", Who::Public),
    ("/weft.identity.v1.EmailService/SendVerification", Who::User),
    ("/weft.identity.v1.EmailService/VerifyEmail", Who::Public),
    ("/weft.identity.v1.GitHubService/Disconnect", Who::User),
    ("/weft.identity.v1.GitHubService/FinishConnect", Who::User),
    ("/weft.identity.v1.GitHubService/GetConnectionStatus", Who::User),
    ("/weft.identity.v1.GitHubService/GetGitHubToken", Who::Services(&["workspace"])),
    ("/weft.identity.v1.GitHubService/StartConnect", Who::User),
    ("/weft.identity.v1.KeyService/GetJwks", Who::Public),
    ("/weft.identity.v1.KeyService/ListRevocations", Who::Services(SERVICES)),
    ("/weft.identity.v1.KeyService/ReportUse", Who::Services(SERVICES)),
    ("/weft.identity.v1.OidcService/FinishLogin", Who::Public),
    ("/weft.identity.v1.OidcService/StartLogin", Who::Public),
    ("/weft.identity.v1.OrganisationService/AcceptInvitation", Who::User),
    ("/weft.identity.v1.OrganisationService/CreateInvitation", Who::User),
    ("/weft.identity.v1.OrganisationService/CreateOrganisation", Who::User),
    ("/weft.identity.v1.OrganisationService/DeleteOrganisation", Who::User),
    ("/weft.identity.v1.OrganisationService/GetOrganisation", Who::User),
    ("/weft.identity.v1.OrganisationService/ListInvitations", Who::User),
    ("/weft.identity.v1.OrganisationService/ListMembers", Who::User),
    ("/weft.identity.v1.OrganisationService/ListOrganisations", Who::User),
    ("/weft.identity.v1.OrganisationService/RemoveMember", Who::User),
    ("/weft.identity.v1.OrganisationService/RevokeInvitation", Who::User),
    ("/weft.identity.v1.OrganisationService/UpdateMember", Who::User),
    ("/weft.identity.v1.OrganisationService/UpdateOrganisation", Who::User),
    ("/weft.identity.v1.PasswordService/ChangePassword", Who::User),
    ("/weft.identity.v1.PasswordService/ForgotPassword", Who::Public),
    ("/weft.identity.v1.PasswordService/ResetPassword", Who::Public),
    ("/weft.identity.v1.PersonalDataService/EraseAccount", Who::User),
    ("/weft.identity.v1.PersonalDataService/ExportData", Who::User),
    ("/weft.identity.v1.ProfileService/GetProfile", Who::User),
    ("/weft.identity.v1.ProfileService/UpdateProfile", Who::User),
    ("/weft.identity.v1.SessionService/EndSession", Who::User),
    ("/weft.identity.v1.SessionService/ListSessions", Who::User),
    ("/weft.identity.v1.SessionService/LogoutAll", Who::User),
    ("/weft.identity.v1.SetupService/CompleteSetup", Who::Public),
    ("/weft.identity.v1.SsoService/ConfirmDomain", Who::Admin),
    ("/weft.identity.v1.SsoService/DeleteConnection", Who::User),
    ("/weft.identity.v1.SsoService/GetConnection", Who::User),
    ("/weft.identity.v1.SsoService/PutConnection", Who::User),
    ("/weft.orchestrator.v1.ChatService/CancelChat", Who::User),
    ("/weft.orchestrator.v1.ChatService/Chat", Who::User),
    ("/weft.orchestrator.v1.ChatService/ResumeChat", Who::User),
    ("/weft.orchestrator.v1.ChatService/StreamChat", Who::User),
    ("/weft.orchestrator.v1.ConversationService/CreateSession", Who::User),
    ("/weft.orchestrator.v1.ConversationService/DeleteSession", Who::User),
    ("/weft.orchestrator.v1.ConversationService/GetSession", Who::User),
    ("/weft.orchestrator.v1.ConversationService/ListMessages", Who::User),
    ("/weft.orchestrator.v1.ConversationService/ListSessions", Who::User),
    ("/weft.orchestrator.v1.ConversationService/UpdateSession", Who::User),
    ("/weft.orchestrator.v1.EmbeddingService/CreateEmbeddings", Who::User),
    ("/weft.orchestrator.v1.ModelService/GetModel", Who::User),
    ("/weft.orchestrator.v1.ModelService/ListModels", Who::User),
    ("/weft.orchestrator.v1.ModelService/TestModel", Who::User),
    ("/weft.orchestrator.v1.OpenAiService/CreateChatCompletion", Who::User),
    ("/weft.orchestrator.v1.OpenAiService/CreateEmbedding", Who::User),
    ("/weft.orchestrator.v1.OpenAiService/GetOpenAiModel", Who::User),
    ("/weft.orchestrator.v1.OpenAiService/ListOpenAiModels", Who::User),
    ("/weft.orchestrator.v1.OpenAiService/StreamChatCompletion", Who::User),
    ("/weft.orchestrator.v1.PersonalDataService/EraseAccount", Who::Services(&["identity"])),
    ("/weft.orchestrator.v1.PersonalDataService/ExportAccount", Who::Services(&["identity"])),
    ("/weft.orchestrator.v1.PlanService/GetPlaybook", Who::User),
    ("/weft.orchestrator.v1.PlanService/ListPlaybooks", Who::User),
    ("/weft.orchestrator.v1.ProviderKeyService/CreateProviderKey", Who::User),
    ("/weft.orchestrator.v1.ProviderKeyService/DeleteProviderKey", Who::User),
    ("/weft.orchestrator.v1.ProviderKeyService/ListProviderKeyUsage", Who::User),
    ("/weft.orchestrator.v1.ProviderKeyService/ListProviderKeys", Who::User),
    ("/weft.orchestrator.v1.ProviderKeyService/UpdateProviderKey", Who::User),
];

fn rpcs(pool: &DescriptorPool) -> BTreeSet<String> {
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name())).collect()
}

/// Calls an RPC with an empty message; what came back is only looked at for its code.
async fn call(server: &Channel, path: &str, product: &str, metadata: &[(&'static str, String)]) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(server.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(());
    request.set_timeout(Duration::from_secs(10));
    request.metadata_mut().insert("x-weft-product", product.parse().unwrap());
    for (key, value) in metadata {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    let answer = client.server_streaming(request, path.parse().unwrap(), ProstCodec::<(), ()>::default()).await?;
    answer.into_inner().message().await.map(drop)
}

fn code(outcome: &Result<(), Status>) -> Code {
    outcome.as_ref().map_or_else(Status::code, |()| Code::Ok)
}

/// Whether a call got as far as the handler: whatever it answered, it was not turned away at the door.
fn admitted(outcome: &Result<(), Status>) -> bool {
    let limited = outcome.as_ref().is_err_and(|status| Reason::of(status) == Some(Reason::RateLimited));
    let refusals = [Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented, Code::Unavailable];
    !limited && !refusals.contains(&code(outcome))
}

/// Refresh, ExchangeToken and CompleteSetup themselves answer UNAUTHENTICATED: their handler was reached if it talks of
/// its own token.
fn is_about_the_token_in_it(outcome: &Result<(), Status>) -> bool {
    let told = |status: &Status| {
        let own = ["the refresh token", "the token is not valid", "the link is not valid any more"];
        own.iter().any(|text| status.message().starts_with(text))
    };
    outcome.as_ref().is_err_and(told)
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

#[test]
fn every_rpc_has_a_policy_and_a_row() {
    let pool = weft_proto::descriptors();
    let policies = weft_auth::Policies::of(pool).expect("every RPC has a policy");
    let rows: BTreeSet<String> = ROWS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(rpcs(pool), rows, "add a row to ROWS for a new RPC");
    for (path, who) in ROWS {
        let policy = policies.get(path).unwrap();
        let callers: Vec<&str> = policy.callers.iter().map(String::as_str).collect();
        match who {
            Who::Public => assert_eq!(policy.access, weft_auth::Access::Public, "{path}"),
            Who::User => assert_eq!(policy.access, weft_auth::Access::User, "{path}"),
            Who::Admin => assert_eq!(policy.access, weft_auth::Access::Admin, "{path}"),
            Who::Services(services) => {
                assert_eq!((policy.access, callers.as_slice()), (weft_auth::Access::Service, *services), "{path}")
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_turns_away_whoever_may_not_call_it() {
    let products = tempfile::tempdir().unwrap();
    // A product whose access tokens live for a second.
    let brief = [
        ("slug = \"adiuva\"", "slug = \"brief\""),
        ("adiuva.test", "brief.test"),
        ("access_ttl_s = 900", "access_ttl_s = 1"),
    ];
    adiuva_with(products.path(), &brief);
    // Whoever is let in gets as far as the service, however often.
    std::fs::rename(products.path().join("changed.toml"), products.path().join("brief.toml")).unwrap();
    adiuva_with(products.path(), &[("requests_per_minute = 20\n", "requests_per_minute = 100000\n")]);
    let mut options = Options::new(WEFT);
    options.environment.push(("WEFT_PRODUCTS_DIR".to_owned(), products.path().display().to_string()));
    options.environment.push(("WEFT_EDGE_ANONYMOUS_PER_MINUTE".to_owned(), "100000".to_owned()));
    let mesh = Mesh::start(options).await;
    let user = Persona::register(mesh.edge(), "adiuva", "user@example.com").await;
    // Logging out ends the session, at the edge and again at the service.
    let leaving = [
        Persona::register(mesh.edge(), "adiuva", "leaving@example.com").await,
        Persona::register(mesh.edge(), "adiuva", "left@example.com").await,
    ];
    let leaving_all = [
        Persona::register(mesh.edge(), "adiuva", "leaving-all@example.com").await,
        Persona::register(mesh.edge(), "adiuva", "left-all@example.com").await,
    ];
    let admin = administrator(&mesh).await;
    let suspended = suspended(&mesh, &admin).await;
    let elsewhere = Persona::register(mesh.edge(), "zerobs", "user@example.com").await;
    let past = Persona::register(mesh.edge(), "brief", "user@example.com").await;
    eventually("the brief token to expire", Duration::from_secs(5), || async {
        past.get("/api/v1/auth/me").await.0 == 401
    })
    .await;

    let edge = Channel::from_shared(mesh.edge().to_owned()).unwrap().connect().await.unwrap();
    for (path, who) in ROWS {
        let service =
            [("identity", &mesh.identities[0]), ("billing", &mesh.billing), ("orchestrator", &mesh.orchestrator)];
        let (name, process) =
            service.into_iter().find(|(name, _)| path.starts_with(&format!("/weft.{name}."))).unwrap();
        let behind = Channel::from_shared(process.url.clone()).unwrap().connect().await.unwrap();
        for (place, (where_, server)) in [("at the edge", &edge), ("at the service", &behind)].into_iter().enumerate() {
            let user = match path.rsplit('/').next() {
                Some("Logout") => &leaving[place],
                Some("LogoutAll") => &leaving_all[place],
                _ => &user,
            };
            let nobody = call(server, path, "adiuva", &[]).await;
            let expired = call(server, path, "brief", &[bearer(past.access_token())]).await;
            let foreign = call(server, path, "adiuva", &[bearer(elsewhere.access_token())]).await;
            let as_user = call(server, path, "adiuva", &[bearer(user.access_token())]).await;
            let as_suspended = call(server, path, "adiuva", &[bearer(&suspended)]).await;
            let told = format!(
                "{path} {where_}: nobody {nobody:?}, expired {expired:?}, foreign {foreign:?}, user {as_user:?}, \
                 suspended {as_suspended:?}"
            );
            if matches!(who, Who::User | Who::Admin) {
                let reason = as_suspended.as_ref().err().and_then(Reason::of);
                assert_eq!(reason, Some(Reason::AccountSuspended), "{told}");
            }
            let outcomes = Outcomes { nobody, expired, foreign, user: as_user };
            outcomes.are_right(*who, &told);
            if *who == Who::Admin {
                let as_admin = call(server, path, "adiuva", &[bearer(&admin)]).await;
                assert!(admitted(&as_admin), "{path} {where_}: admin {as_admin:?}");
            }
        }
        if let Who::Services(listed) = who {
            services_are_told_apart(&behind, &edge, name, path, listed).await;
        }
    }
}

/// What callers who should not get in were told, and a plain user.
struct Outcomes {
    nobody: Result<(), Status>,
    expired: Result<(), Status>,
    foreign: Result<(), Status>,
    user: Result<(), Status>,
}

impl Outcomes {
    fn are_right(&self, who: Who, told: &str) {
        match who {
            // Whoever comes with a token that is worth nothing is nobody, and nobody is let in.
            Who::Public => {
                for outcome in [&self.nobody, &self.expired, &self.foreign] {
                    assert!(admitted(outcome) || is_about_the_token_in_it(outcome), "{told}");
                }
            }
            Who::User => {
                assert_eq!(
                    (code(&self.nobody), code(&self.expired), code(&self.foreign)),
                    (Code::Unauthenticated, Code::Unauthenticated, Code::PermissionDenied),
                    "{told}"
                );
                assert!(admitted(&self.user), "{told}");
            }
            Who::Admin => {
                assert_eq!(
                    (code(&self.nobody), code(&self.expired), code(&self.foreign), code(&self.user)),
                    (Code::Unauthenticated, Code::Unauthenticated, Code::PermissionDenied, Code::PermissionDenied),
                    "{told}"
                );
            }
            Who::Services(_) => {
                assert_eq!(
                    (code(&self.nobody), code(&self.user)),
                    (Code::Unauthenticated, Code::PermissionDenied),
                    "{told}"
                );
            }
        }
    }
}

/// The access token of an administrator of adiuva.
async fn administrator(mesh: &Mesh) -> String {
    let admin = Persona::register(mesh.edge(), "adiuva", "admin@example.com").await;
    mesh.identities[0].run(&["admin", "grant", &admin.email, "--product", "adiuva"]).await;
    let sign_in = json!({"email": admin.email, "password": admin.password});
    let (_, tokens) = Client::new(mesh.edge(), "adiuva").post("/api/v1/auth/login", None, &sign_in).await;
    tokens["access_token"].as_str().unwrap().to_owned()
}

/// The access token of an account that was suspended after it had signed in, once everybody knows.
async fn suspended(mesh: &Mesh, admin: &str) -> String {
    let person = Persona::register(mesh.edge(), "adiuva", "suspended@example.com").await;
    let (_, me) = person.get("/api/v1/auth/me").await;
    let path = format!("/api/admin/users/{}", me["id"].as_str().unwrap());
    let order = json!({"suspended": true, "suspend_reason": "for the walk"});
    let (status, answer) = Client::new(mesh.edge(), "adiuva").put(&path, Some(admin), &order).await;
    assert_eq!(status, 200, "{answer}");
    // Each service hears of it by itself, within a second; the chat is behind the edge, billing and orchestrator.
    tokio::time::sleep(Duration::from_secs(1)).await;
    person.access_token().to_owned()
}

/// A service that is listed is let in; one that is not, one with another secret and one that asks at the edge are not.
async fn services_are_told_apart(
    behind: &Channel,
    edge: &Channel,
    name: &'static str,
    path: &str,
    listed: &[&'static str],
) {
    let token = |secret: &str, caller: &'static str| {
        let key = ServiceKey::new(&secret.to_owned().into(), caller);
        vec![(SERVICE_TOKEN_HEADER, key.mint(name))]
    };
    for caller in SERVICES {
        let outcome = call(behind, path, "adiuva", &token(SERVICE_SECRET, caller)).await;
        assert_eq!(admitted(&outcome), listed.contains(caller), "{path} as {caller}: {outcome:?}");
    }
    let stranger = call(behind, path, "adiuva", &token("a secret that nobody here knows", listed[0])).await;
    assert_eq!(code(&stranger), Code::Unauthenticated, "{path}: {stranger:?}");
    let outside = call(edge, path, "adiuva", &token(SERVICE_SECRET, listed[0])).await;
    assert_eq!(code(&outside), Code::Unauthenticated, "{path} from outside: {outside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_annotated_rpc_has_its_route() {
    let mesh = Mesh::start(Options::new(WEFT)).await;
    let client = Client::new(mesh.edge(), "adiuva");
    let mut routes = 0;
    for (verb, path) in bindings(weft_proto::descriptors()) {
        let (status, answer) = match verb.as_str() {
            "get" => client.get(&path, None).await,
            "post" => client.post(&path, None, &json!({})).await,
            "put" => client.put(&path, None, &json!({})).await,
            "patch" => client.patch(&path, None, &json!({})).await,
            "delete" => client.delete(&path, None).await,
            other => panic!("{other} {path}: teach this test the verb"),
        };
        assert!(![404, 405, 500, 501].contains(&status), "{verb} {path}: {status} {answer}");
        routes += 1;
    }
    assert!(routes >= 8, "{routes} routes");
    let (status, answer) = client.get("/api/v1/no/such/path", None).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("not_found")));
    let (status, answer) = client.get("/api/v1/auth/login", None).await;
    assert_eq!((status, &answer["error"]["code"]), (405, &json!("method_not_allowed")));
}

/// Every `google.api.http` binding of every RPC, with variables filled in.
fn bindings(pool: &DescriptorPool) -> Vec<(String, String)> {
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let mut found = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&http) {
            continue;
        }
        let Value::Message(rule) = options.get_extension(&http).into_owned() else { panic!("a rule is a message") };
        let further = rule.get_field_by_name("additional_bindings").unwrap().into_owned();
        let further: Vec<_> =
            further.as_list().unwrap().iter().map(|rule| rule.as_message().unwrap().clone()).collect();
        for rule in std::iter::once(&rule).chain(&further) {
            for verb in ["get", "put", "post", "delete", "patch"] {
                let path = rule.get_field_by_name(verb).unwrap();
                if rule.has_field_by_name(verb) {
                    found.push((verb.to_owned(), path.as_str().unwrap().replace(['{', '}'], "")));
                }
            }
        }
    }
    found
}
