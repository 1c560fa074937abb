//! What is known of somebody: to take along, and to be forgotten.
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tonic::Status;
use weft_core::Reason;
use weft_identity::Config;
use weft_proto::identity::v1::personal_data_service_client::PersonalDataServiceClient;
use weft_proto::identity::v1::{
    CreateInvitationRequest, CreateOrganisationRequest, EraseAccountRequest, EraseAccountResponse, ExportDataRequest,
    ExportedData, ForgotPasswordRequest, ForgotPasswordResponse, Invitation, Organisation, SendVerificationRequest,
    SendVerificationResponse, UpdateUserRequest, User, VerifyEmailRequest, VerifyEmailResponse,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{
    MailServer, Node, OTHER_PRODUCT, PASSWORD, PRODUCT, Session, World, claim, link_token, reason, with,
};

on_both_databases! {
    an_export_has_what_every_service_knows
    of_a_long_log_the_export_has_every_entry_once
    half_an_export_is_none
    an_account_is_erased_by_who_knows_its_password
    an_erasure_goes_on_until_every_service_has_forgotten
    what_was_under_way_is_deleted_a_quarter_of_an_hour_later
    of_many_erasures_at_once_one_happens
    who_owns_an_organisation_with_others_is_not_erased
    an_organisation_of_ones_own_goes_and_seats_of_others_are_free
    who_is_suspended_is_not_forgotten
    an_address_is_sent_no_more_mails_because_its_account_was_made_anew
    an_account_that_has_not_proven_its_address_takes_no_invitations_of_it_away
}

const QUARTER_S: u64 = 15 * 60;

async fn export(node: &Node, tokens: &Session) -> Result<Vec<ExportedData>, Status> {
    let mut client = PersonalDataServiceClient::new(node.channel.clone());
    let request = with(PRODUCT, Some(&tokens.access_token), ExportDataRequest {});
    let mut parts = client.export_data(request).await?.into_inner();
    let mut got = Vec::new();
    while let Some(part) = parts.message().await? {
        got.push(part);
    }
    Ok(got)
}

fn json(parts: &[ExportedData], service: &str, name: &str) -> Vec<Value> {
    let those = parts.iter().filter(|part| part.service == service && part.name == name);
    those.map(|part| serde_json::from_str(&part.json).unwrap()).collect()
}

async fn erase(node: &Node, tokens: &Session, password: &str) -> Result<(), Reason> {
    let path = "/weft.identity.v1.PersonalDataService/EraseAccount";
    let message = EraseAccountRequest { password: password.to_owned() };
    let answer: Result<EraseAccountResponse, _> = node.call(tokens, path, message).await;
    answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
}

fn id(tokens: &Session) -> String {
    claim(tokens, "sub").as_str().unwrap().to_owned()
}

/// How often something is in the audit log.
async fn noted(world: &World, kind: &str) -> usize {
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events").await;
    kinds.iter().filter(|known| *known == kind).count()
}

async fn until_erased(world: &World, times: usize) {
    eventually("the end of the erasure", Duration::from_secs(10), async || noted(world, "erased").await == times).await;
}

async fn organisation(node: &Node, owner: &Session) -> String {
    let path = "/weft.identity.v1.OrganisationService/CreateOrganisation";
    let made: Organisation = node.call(owner, path, CreateOrganisationRequest { name: "Acme".into() }).await.unwrap();
    made.id
}

async fn join(world: &World, organisation: &str, who: &Session) {
    let (id, now) = (id(who), world.clock.now_ms());
    let insert = "INSERT INTO memberships (product, organisation_id, account_id, role, joined_at)";
    world.tamper(format!("{insert} VALUES ('{PRODUCT}', '{organisation}', '{id}', 'member', {now})")).await;
}

async fn an_export_has_what_every_service_knows(world: &World) {
    let node = world.node().await;
    let (ana, ben) = (node.register("Ana@example.com").await, node.register("ben@example.com").await);
    organisation(&node, &ana).await;
    let parts = export(&node, &ana).await.unwrap();
    let names: Vec<(&str, &str)> = parts.iter().map(|part| (part.service.as_str(), part.name.as_str())).collect();
    let ours = ["profile", "sessions", "organisations", "issuers", "github", "api_keys", "audit"].map(|name| ("identity", name));
    assert_eq!(names, [&ours[..], &[("billing", "kept"), ("orchestrator", "kept")]].concat());
    let profile = &json(&parts, "identity", "profile")[0];
    assert_eq!((&profile["id"], &profile["email"]), (&Value::from(id(&ana)), &Value::from("Ana@example.com")));
    assert_eq!(json(&parts, "identity", "sessions")[0][0]["id"], claim(&ana, "sid"));
    assert_eq!(json(&parts, "identity", "organisations")[0][0]["role"], "owner");
    assert_eq!(json(&parts, "identity", "audit")[0].as_array().unwrap().len(), 2);
    for service in ["billing", "orchestrator"] {
        assert_eq!(json(&parts, service, "kept")[0]["of"], format!("{PRODUCT} {}", id(&ana)));
    }
    let told = format!("{parts:?}");
    for secret in ["$argon2", ana.refresh_token.as_str(), ana.access_token.as_str(), "ben@", &id(&ben)] {
        assert!(!told.contains(secret), "{secret}");
    }
}

async fn of_a_long_log_the_export_has_every_entry_once(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    world
        .tamper(format!(
            "INSERT INTO audit_events (id, product, kind, account_id, request_id, at, number, hash) \
             WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 3499) \
             SELECT 'x' || i, '{PRODUCT}', 'login_failed', '{}', 'r', 1, i, hash FROM n, \
             (SELECT hash FROM audit_events LIMIT 1) AS h",
            id(&ana)
        ))
        .await;
    let parts = export(&node, &ana).await.unwrap();
    let audit = json(&parts, "identity", "audit");
    assert_eq!(audit.len(), 3, "in parts");
    let mut numbers: Vec<i64> =
        audit.iter().flat_map(|part| part.as_array().unwrap()).map(|row| row["number"].as_i64().unwrap()).collect();
    assert_eq!(numbers.len(), 2501);
    numbers.dedup();
    assert_eq!((numbers.len(), numbers.is_sorted_by(|a, b| a > b)), (2501, true));
}

async fn half_an_export_is_none(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    for service in ["billing", "orchestrator"] {
        world.keepers.go_away(service);
        assert_eq!(reason(&export(&node, &ana).await.unwrap_err()), Reason::Unavailable, "{service}");
        world.keepers.come_back();
    }
    assert!(export(&node, &ana).await.is_ok());
}

async fn an_account_is_erased_by_who_knows_its_password(world: &World) {
    let node = world.node().await;
    let (ana, ben) = (node.register("ana@example.com").await, node.register("ben@example.com").await);
    let second = node.login("ana@example.com").await.unwrap();
    let foreign = node.register_in(OTHER_PRODUCT, "ana@example.com", PASSWORD).await.unwrap();
    assert_eq!(erase(&node, &ana, "").await, Err(Reason::InvalidArgument));
    assert_eq!(erase(&node, &ana, "wrong password").await, Err(Reason::InvalidCredentials));
    assert_eq!(noted(world, "login_failed").await, 1, "it is a guess like any other");
    assert!(node.me(&ana).await.is_ok() && world.keepers.erased().is_empty());

    assert_eq!(erase(&node, &ana, PASSWORD).await, Ok(()));
    for old in [&ana, &second] {
        assert_eq!(node.me(old).await, Err(Reason::Unauthenticated), "at once");
        assert_eq!(node.refresh(old).await, Err(Reason::Unauthenticated));
        assert_eq!(erase(&node, old, PASSWORD).await, Err(Reason::Unauthenticated));
    }
    assert_eq!(node.login("ana@example.com").await, Err(Reason::InvalidCredentials));
    until_erased(world, 1).await;
    let mut asked = world.keepers.erased();
    asked.sort();
    assert_eq!(asked, ["billing", "orchestrator"].map(|service| format!("{service} {PRODUCT} {}", id(&ana))));
    assert!(node.me(&ben).await.is_ok(), "somebody else");
    assert!(node.me_in(OTHER_PRODUCT, &foreign).await.is_ok(), "the same address elsewhere");

    let again = node.register("ana@example.com").await;
    assert_ne!(id(&again), id(&ana), "somebody else");
    let emails: Vec<String> = world.column("SELECT email FROM accounts ORDER BY id").await;
    assert_eq!(emails, ["ben@example.com", "ana@example.com", "ana@example.com"]);
    let left = "SELECT COUNT(*) FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = s.account_id)";
    assert_eq!(world.column::<i64>(left).await, [0]);
}

async fn an_erasure_goes_on_until_every_service_has_forgotten(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    world.keepers.go_away("orchestrator");
    assert_eq!(erase(&node, &ana, PASSWORD).await, Ok(()), "it has begun");
    eventually("the first try", Duration::from_secs(10), async || {
        world.column::<Option<String>>("SELECT last_error FROM jobs").await
            == [Some("orchestrator answered Unavailable".to_owned())]
    })
    .await;
    assert_eq!((noted(world, "erase_requested").await, noted(world, "erased").await), (1, 0));
    node.stop().await;
    let _node = world.node().await;
    world.keepers.come_back();
    world.pass(3600);
    until_erased(world, 1).await;
    assert!(world.keepers.erased().contains(&format!("orchestrator {PRODUCT} {}", id(&ana))));
}

async fn what_was_under_way_is_deleted_a_quarter_of_an_hour_later(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    assert_eq!(erase(&node, &ana, PASSWORD).await, Ok(()));
    until_erased(world, 1).await;
    assert_eq!(world.keepers.erased().len(), 2);
    world.pass(QUARTER_S + 1);
    eventually("the second time", Duration::from_secs(10), async || world.keepers.erased().len() == 4).await;
    eventually("the end of the job", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT COUNT(*) FROM jobs").await == [0]
    })
    .await;
    assert_eq!(noted(world, "erased").await, 1, "it is told once");
}

async fn of_many_erasures_at_once_one_happens(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let ana = nodes[0].register("ana@example.com").await;
    let second = nodes[0].login("ana@example.com").await.unwrap();
    let tries = (0..6).map(|number| erase(&nodes[number % 2], if number < 3 { &ana } else { &second }, PASSWORD));
    let outcomes = join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Reason::Unauthenticated))), "{outcomes:?}");
    until_erased(world, 1).await;
    assert_eq!(noted(world, "erase_requested").await, 1);
}

async fn who_owns_an_organisation_with_others_is_not_erased(world: &World) {
    let node = world.node().await;
    let (ana, ben) = (node.register("ana@example.com").await, node.register("ben@example.com").await);
    let organisation = organisation(&node, &ana).await;
    join(world, &organisation, &ben).await;
    assert_eq!(erase(&node, &ana, PASSWORD).await, Err(Reason::PreconditionFailed));
    assert!(node.me(&ana).await.is_ok());
    assert_eq!(erase(&node, &ben, PASSWORD).await, Ok(()), "a member may go");
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM memberships").await, [1]);
    assert_eq!(erase(&node, &ana, PASSWORD).await, Ok(()), "now nobody else is in it");
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM organisations").await, [0]);
}

async fn an_organisation_of_ones_own_goes_and_seats_of_others_are_free(world: &World) {
    let node = world.node().await;
    let (ana, ben) = (node.register("ana@example.com").await, node.register("ben@example.com").await);
    let theirs = organisation(&node, &ana).await;
    organisation(&node, &ben).await;
    join(world, &theirs, &ben).await;
    let owner = id(&ana);
    world.known.sell(&owner, 3);
    world.known.seat(&owner, &owner);
    world.known.seat(&owner, &id(&ben));
    assert_eq!(erase(&node, &ben, PASSWORD).await, Ok(()));
    eventually("free seats", Duration::from_secs(10), async || world.known.seated(&owner).is_empty()).await;
    assert_eq!(world.column::<String>("SELECT id FROM organisations").await, [theirs]);
}

async fn who_is_suspended_is_not_forgotten(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    let order = UpdateUserRequest {
        user_id: id(&ana),
        suspended: Some(true),
        suspend_reason: "abuse".to_owned(),
        ..UpdateUserRequest::default()
    };
    let _: User = node.call(&admin, "/weft.identity.v1.AdminService/UpdateUser", order).await.unwrap();
    assert_eq!(erase(&node, &ana, PASSWORD).await, Err(Reason::AccountSuspended));
    // Where nobody has heard of it yet.
    world.tamper("DELETE FROM revocations").await;
    let elsewhere = world.node().await;
    assert_eq!(erase(&elsewhere, &ana, PASSWORD).await, Err(Reason::AccountSuspended));
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM accounts").await, [2]);
}

async fn mailing(world: &World, server: &MailServer) -> Node {
    world.node_with(Config { smtp_url: Some(server.url.clone().into()), ..world.config.clone() }).await
}

async fn until_sent(world: &World) {
    eventually("the end of the mails", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT COUNT(*) FROM jobs WHERE kind LIKE '%_mail'").await == [0]
    })
    .await;
}

async fn an_address_is_sent_no_more_mails_because_its_account_was_made_anew(world: &World) {
    let server = MailServer::start().await;
    let node = mailing(world, &server).await;
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        let ana = node.register("victim@example.com").await;
        let path = "/weft.identity.v1.EmailService/SendVerification";
        let sent: Result<SendVerificationResponse, _> = node.call(&ana, path, SendVerificationRequest {}).await;
        outcomes.push(sent.map(drop).map_err(|status| reason(&status)));
        let path = "/weft.identity.v1.PasswordService/ForgotPassword";
        let forgot = ForgotPasswordRequest { email: "victim@example.com".to_owned() };
        let _: ForgotPasswordResponse = node.call_as(None, path, forgot).await.unwrap();
        eventually("the mails", Duration::from_secs(10), async || {
            world.column::<i64>("SELECT COUNT(*) FROM jobs WHERE kind LIKE '%_mail' AND run_at <= 1790000060123").await
                == [0]
        })
        .await;
        assert_eq!(erase(&node, &ana, PASSWORD).await, Ok(()));
    }
    let refused = Err(Reason::RateLimited);
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), refused, refused]);
    let mails = server.received();
    let resets = mails.iter().filter(|mail| mail.data.contains("reset-password")).count();
    assert_eq!((mails.len() - resets, resets), (3, 1), "three proofs an hour, resets two minutes apart");
    // Links of an account that is no more are good for nobody who comes after it.
    node.register("victim@example.com").await;
    let proof = mails.iter().find(|mail| mail.data.contains("verify-email")).unwrap();
    let message = VerifyEmailRequest { token: link_token(&proof.data).1 };
    let path = "/weft.identity.v1.EmailService/VerifyEmail";
    let answer: Result<VerifyEmailResponse, _> = node.call_as(None, path, message).await;
    assert_eq!(reason(&answer.unwrap_err()), Reason::InvalidArgument);
}

async fn an_account_that_has_not_proven_its_address_takes_no_invitations_of_it_away(world: &World) {
    let server = MailServer::start().await;
    let node = mailing(world, &server).await;
    let owner = node.register("owner@example.com").await;
    let organisation_id = organisation(&node, &owner).await;
    let invite = async || {
        let message = CreateInvitationRequest {
            organisation_id: organisation_id.clone(),
            email: "ana@example.com".to_owned(),
            role: String::new(),
        };
        let path = "/weft.identity.v1.OrganisationService/CreateInvitation";
        let made: Result<Invitation, _> = node.call(&owner, path, message).await;
        until_sent(world).await;
        made.map(drop).map_err(|status| reason(&status))
    };
    for _ in 0..3 {
        assert_eq!(invite().await, Ok(()));
    }
    let stranger = node.register("ana@example.com").await;
    assert_eq!(erase(&node, &stranger, PASSWORD).await, Ok(()));
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM invitations WHERE ended_at IS NULL").await, [1]);
    assert_eq!(invite().await, Err(Reason::RateLimited));

    let ana = node.register("ana@example.com").await;
    world.tamper(format!("UPDATE accounts SET email_verified_at = 1 WHERE id = '{}'", id(&ana))).await;
    assert_eq!(erase(&node, &ana, PASSWORD).await, Ok(()));
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM invitations").await, [0], "it was their address");
}
