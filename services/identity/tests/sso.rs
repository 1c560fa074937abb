//! Single sign-on of organisations.
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tonic::Status;
use weft_core::Reason;
use weft_identity::Config;
use weft_product::Products;
use weft_proto::identity::v1::{
    ConfirmDomainRequest, CreateOrganisationRequest, DeleteConnectionRequest, DeleteConnectionResponse,
    GetConnectionRequest, ListMembersRequest, ListMembersResponse, Organisation, PutConnectionRequest, SsoConnection,
};
use weft_testing::issuer::{CLIENT_ID, CLIENT_SECRET, IssuerStub};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{NameServer, Node, Outcome, Session, World, claim, reason};
use crate::oidc::{browse, finish, node, person, sign_in, start};

on_both_databases! {
    people_of_a_proven_domain_sign_in_and_are_members
    an_administrator_confirms_a_domain_that_is_nobody_elses
    only_who_runs_an_organisation_with_the_plan_sets_it_up
    a_hostile_provider_signs_in_as_nobody_else
    a_domain_that_another_has_proven_is_refused
    an_issuer_must_be_itself_and_outside
    a_client_secret_is_kept_sealed_for_its_issuer_only
    what_is_deleted_lets_nobody_in
    without_a_seat_nobody_gets_in
}

/// An organisation with an owner.
struct Firm {
    id: String,
    owner_id: String,
    owner: Session,
}

async fn firm(world: &World, node: &Node, name: &str) -> Firm {
    let owner = node.register(&format!("{name}@example.org")).await;
    let owner_id = claim(&owner, "sub").as_str().unwrap().to_owned();
    world.known.sell(&owner_id, 10);
    let message = CreateOrganisationRequest { name: name.to_owned() };
    let path = "/weft.identity.v1.OrganisationService/CreateOrganisation";
    let made: Organisation = node.call(&owner, path, message).await.unwrap();
    Firm { id: made.id, owner_id, owner }
}

fn put_of(firm: &Firm, issuer: &str, domains: &[&str]) -> PutConnectionRequest {
    PutConnectionRequest {
        organisation_id: firm.id.clone(),
        issuer: issuer.to_owned(),
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
    }
}

async fn put(node: &Node, who: &Session, message: PutConnectionRequest) -> Outcome<SsoConnection> {
    let answer = node.call(who, "/weft.identity.v1.SsoService/PutConnection", message).await;
    answer.map_err(|status| reason(&status))
}

async fn get(node: &Node, who: &Session, firm: &Firm) -> Outcome<SsoConnection> {
    let message = GetConnectionRequest { organisation_id: firm.id.clone() };
    let answer = node.call(who, "/weft.identity.v1.SsoService/GetConnection", message).await;
    answer.map_err(|status| reason(&status))
}

async fn delete(node: &Node, who: &Session, firm: &Firm) -> Outcome<()> {
    let message = DeleteConnectionRequest { organisation_id: firm.id.clone() };
    let answer: Result<DeleteConnectionResponse, Status> =
        node.call(who, "/weft.identity.v1.SsoService/DeleteConnection", message).await;
    answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
}

async fn confirm(node: &Node, who: &Session, firm: &Firm, domain: &str) -> Outcome<SsoConnection> {
    let message = ConfirmDomainRequest { organisation_id: firm.id.clone(), domain: domain.to_owned() };
    let answer = node.call(who, "/weft.identity.v1.SsoService/ConfirmDomain", message).await;
    answer.map_err(|status| reason(&status))
}

/// A firm whose people sign in at `stub`, confirmed.
async fn connected(world: &World, node: &Node, admin: &Session, stub: &IssuerStub, name: &str, domain: &str) -> Firm {
    let firm = firm(world, node, name).await;
    put(node, &firm.owner, put_of(&firm, stub.url(), &[domain])).await.unwrap();
    confirm(node, admin, &firm, domain).await.unwrap();
    firm
}

fn sub(tokens: &Session) -> String {
    claim(tokens, "sub").as_str().unwrap().to_owned()
}

async fn people_of_a_proven_domain_sign_in_and_are_members(world: &World) {
    let (stub, dns) = (IssuerStub::start().await, NameServer::start().await);
    let config = Config { weft_dns_server: Some(dns.address), ..world.config.clone() };
    let node = node(world, &stub, config).await;
    let firm = firm(world, &node, "acme").await;
    dns.set("acme.example.com", &["v=spf1 -all", "weft-domain=of somebody else"]);
    let set = put(&node, &firm.owner, put_of(&firm, stub.url(), &["ACME.example.com", "acme.test.dev"])).await.unwrap();
    assert_eq!((set.issuer.as_str(), set.client_id.as_str()), (stub.url(), CLIENT_ID));
    let shown: Vec<(&str, bool)> = set.domains.iter().map(|row| (row.domain.as_str(), row.verified)).collect();
    assert_eq!(shown, [("acme.example.com", false), ("acme.test.dev", false)]);
    assert_eq!(start(&node, "bob@acme.example.com").await, Err(Reason::IdentityProviderNotEnabled));

    dns.set("acme.example.com", &["v=spf1 -all", &set.domains[0].txt_record]);
    dns.set("acme.test.dev", &[&set.domains[0].txt_record]);
    let seen = get(&node, &firm.owner, &firm).await.unwrap();
    assert_eq!(seen.domains.iter().map(|row| row.verified).collect::<Vec<_>>(), [true, false]);
    assert_eq!(start(&node, "bob@acme.test.dev").await, Err(Reason::IdentityProviderNotEnabled));

    stub.person(&person(world, "bob", "Bob@Acme.example.com"));
    let first = sign_in(&node, &stub, "bob@ACME.example.com").await.unwrap();
    assert_eq!(node.me(&first).await.unwrap().email, "Bob@Acme.example.com");
    let again = sign_in(&node, &stub, "bob@acme.example.com").await.unwrap();
    assert_eq!(sub(&first), sub(&again));
    let message = ListMembersRequest { organisation_id: firm.id.clone(), ..ListMembersRequest::default() };
    let path = "/weft.identity.v1.OrganisationService/ListMembers";
    let members: ListMembersResponse = node.call(&first, path, message).await.unwrap();
    let members: Vec<(&str, &str)> =
        members.members.iter().map(|member| (member.account_id.as_str(), member.role.as_str())).collect();
    assert_eq!(members, [(firm.owner_id.as_str(), "owner"), (sub(&first).as_str(), "member")]);
    assert!(world.known.seated(&firm.owner_id).contains(&sub(&first)));
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events WHERE kind LIKE 'sso%' ORDER BY id").await;
    assert_eq!(kinds, ["sso_set", "sso_domain_proven"]);
}

async fn an_administrator_confirms_a_domain_that_is_nobody_elses(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let admin = world.admin(&node, "admin@example.org").await;
    let (one, other) = (firm(world, &node, "one").await, firm(world, &node, "other").await);
    for firm in [&one, &other] {
        assert_eq!(confirm(&node, &admin, firm, "one.example.com").await, Err(Reason::NotFound));
        put(&node, &firm.owner, put_of(firm, stub.url(), &["one.example.com"])).await.unwrap();
    }
    assert_eq!(confirm(&node, &one.owner, &one, "one.example.com").await, Err(Reason::PermissionDenied));
    let (mine, theirs) = tokio::join!(
        confirm(&node, &admin, &one, "One.Example.com"),
        confirm(&node, &admin, &other, "one.example.com")
    );
    assert!(mine.is_ok() != theirs.is_ok(), "{mine:?} {theirs:?}");
    assert_eq!(mine.and(theirs).unwrap_err(), Reason::AlreadyExists);
    assert_eq!(confirm(&node, &admin, &one, "two.example.com").await, Err(Reason::NotFound));
}

async fn only_who_runs_an_organisation_with_the_plan_sets_it_up(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let admin = world.admin(&node, "admin@example.org").await;
    let acme = connected(world, &node, &admin, &stub, "acme", "acme.example.com").await;
    stub.person(&person(world, "bob", "bob@acme.example.com"));
    let member = sign_in(&node, &stub, "bob@acme.example.com").await.unwrap();
    for (who, expected) in [(&member, Reason::PermissionDenied), (&admin, Reason::NotFound)] {
        assert_eq!(put(&node, who, put_of(&acme, stub.url(), &["a.example.com"])).await, Err(expected));
        assert_eq!(get(&node, who, &acme).await, Err(expected));
        assert_eq!(delete(&node, who, &acme).await, Err(expected));
    }
    world.known.take_sso(&acme.owner_id);
    eventually("the plan to be known", Duration::from_secs(3), async || {
        get(&node, &acme.owner, &acme).await == Err(Reason::FeatureNotInPlan)
    })
    .await;
    let again = put_of(&acme, stub.url(), &["acme.example.com"]);
    assert_eq!(put(&node, &acme.owner, again).await, Err(Reason::FeatureNotInPlan));
    assert_eq!(start(&node, "bob@acme.example.com").await, Err(Reason::IdentityProviderNotEnabled));
    assert!(node.refresh(&member).await.is_ok(), "sessions stay");
}

/// Whoever runs an organisation chooses its provider, and so everything that it says.
async fn a_hostile_provider_signs_in_as_nobody_else(world: &World) {
    let (good, evil) = (IssuerStub::start().await, IssuerStub::start().await);
    let node = node(world, &good, world.config.clone()).await;
    let admin = world.admin(&node, "admin@example.org").await;
    let of_product = sign_in(&node, &good, "").await.unwrap();
    let password = node.register("eve@evil.example.com").await;
    connected(world, &node, &admin, &good, "acme", "acme.example.com").await;
    good.person(&person(world, "bob", "bob@acme.example.com"));
    let bob = sign_in(&node, &good, "bob@acme.example.com").await.unwrap();
    let mallory = connected(world, &node, &admin, &evil, "mallory", "evil.example.com").await;

    let at = "eve@evil.example.com";
    for (told, bent) in [
        (person(world, "bob", "bob@acme.example.com"), json!({})),
        (person(world, "bob", "ana@example.com"), json!({})),
        (person(world, "bob", "bob@acme.example.com.evil.example.com"), json!({})),
        (person(world, "bob", at), json!({"iss": good.url()})),
        (person(world, "bob", at), json!({"email_verified": false})),
        (person(world, "bob", at), json!({"email_verified": "true"})),
        (person(world, "bob", at), json!({"email": null})),
        (person(world, "bob", at), json!({"email": [at]})),
    ] {
        evil.person(&told);
        evil.bend(&bent);
        assert_eq!(sign_in(&node, &evil, at).await, Err(Reason::Unauthenticated), "{told} {bent}");
    }
    evil.bend(&json!({"roles": ["admin"], "admin": true, "public_metadata": {"admin": true}}));
    let mut subjects = vec![sub(&of_product), sub(&password), sub(&bob)];
    for (subject, email) in [("bob", at), ("ana-1", at), (subjects[1].clone().as_str(), at)] {
        evil.person(&person(world, subject, email));
        let tokens = sign_in(&node, &evil, at).await.unwrap();
        assert_eq!(claim(&tokens, "roles"), claim(&bob, "roles"));
        subjects.push(sub(&tokens));
    }
    // With the issuer of somebody else as its own it gets no further.
    put(&node, &mallory.owner, put_of(&mallory, good.url(), &["evil.example.com"])).await.unwrap();
    good.person(&person(world, "bob", at));
    subjects.push(sub(&sign_in(&node, &good, at).await.unwrap()));
    let count = subjects.len();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), count, "everybody is somebody else");
}

async fn a_domain_that_another_has_proven_is_refused(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let admin = world.admin(&node, "admin@example.org").await;
    let acme = connected(world, &node, &admin, &stub, "acme", "acme.example.com").await;
    let other = firm(world, &node, "other").await;
    let wanted = put_of(&other, stub.url(), &["acme.example.com", "other.example.com"]);
    assert_eq!(put(&node, &other.owner, wanted.clone()).await, Err(Reason::AlreadyExists));
    assert_eq!(get(&node, &other.owner, &other).await, Err(Reason::NotFound), "nothing of it was done");
    // A domain that its organisation names no more is free, and has to be proven again.
    put(&node, &acme.owner, put_of(&acme, stub.url(), &["acme.test.dev"])).await.unwrap();
    let set = put(&node, &other.owner, wanted).await.unwrap();
    assert!(set.domains.iter().all(|row| !row.verified));
    assert_eq!(start(&node, "bob@acme.example.com").await, Err(Reason::IdentityProviderNotEnabled));
}

async fn an_issuer_must_be_itself_and_outside(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let acme = firm(world, &node, "acme").await;
    let port = stub.url().rsplit(':').next().unwrap();
    let put_at =
        async |node: &Node, issuer: &str| put(node, &acme.owner, put_of(&acme, issuer, &["a.example.com"])).await;
    for issuer in [format!("{}/", stub.url()), format!("http://localhost:{port}"), "https://".to_owned(), String::new()]
    {
        assert_eq!(put_at(&node, &issuer).await, Err(Reason::InvalidArgument), "{issuer}");
    }
    for described in [
        json!({"issuer": "https://login.example.com"}),
        json!({"token_endpoint": "http://login.example.com/token"}),
        json!({"jwks_uri": "http://10.0.0.1/keys"}),
        json!({"filler": "x".repeat(70_000)}),
    ] {
        stub.describe(&described);
        assert_eq!(put_at(&node, stub.url()).await, Err(Reason::InvalidArgument));
    }
    stub.describe(&json!({}));
    stub.down();
    assert_eq!(put_at(&node, stub.url()).await, Err(Reason::Unavailable));
    stub.up();
    let before = stub.discoveries();
    let outside = world.node_of(world.config.clone(), Arc::new(Products::builtin()), "").await;
    for (issuer, expected) in [
        (stub.url().to_owned(), Reason::InvalidArgument),
        (format!("https://127.0.0.1:{port}"), Reason::InvalidArgument),
        (format!("https://[::ffff:127.0.0.1]:{port}"), Reason::InvalidArgument),
        ("https://169.254.169.254".to_owned(), Reason::InvalidArgument),
        ("https://10.0.0.1/".to_owned(), Reason::InvalidArgument),
        (format!("https://localhost:{port}"), Reason::Unavailable),
    ] {
        assert_eq!(put_at(&outside, &issuer).await, Err(expected), "{issuer}");
    }
    assert_eq!(stub.discoveries(), before, "it was never asked");
    assert!(put_at(&node, stub.url()).await.is_ok());
}

async fn a_client_secret_is_kept_sealed_for_its_issuer_only(world: &World) {
    let (stub, other) = (IssuerStub::start().await, IssuerStub::start().await);
    let node = node(world, &stub, world.config.clone()).await;
    let admin = world.admin(&node, "admin@example.org").await;
    let acme = connected(world, &node, &admin, &stub, "acme", "acme.example.com").await;
    let same =
        PutConnectionRequest { client_secret: String::new(), ..put_of(&acme, stub.url(), &["acme.example.com"]) };
    assert!(put(&node, &acme.owner, same.clone()).await.unwrap().domains[0].verified, "it stays proven");
    for changed in [
        PutConnectionRequest { issuer: other.url().to_owned(), ..same.clone() },
        PutConnectionRequest { client_id: "another client".to_owned(), ..same },
    ] {
        assert_eq!(put(&node, &acme.owner, changed).await, Err(Reason::InvalidArgument));
    }
    let sealed: Vec<Vec<u8>> = world.column("SELECT sealed FROM sso_connections").await;
    assert!(!sealed[0].windows(CLIENT_SECRET.len()).any(|part| part == CLIENT_SECRET.as_bytes()));
    let key = weft_identity::rotate_keys(&world.config, world.clock.clone()).await.unwrap();
    eventually("the secret to be sealed again", Duration::from_secs(15), async || {
        world.column::<String>("SELECT key_id FROM sso_connections").await == [key.clone()]
    })
    .await;
    assert_ne!(world.column::<Vec<u8>>("SELECT sealed FROM sso_connections").await, sealed);
    stub.person(&person(world, "bob", "bob@acme.example.com"));
    assert!(sign_in(&node, &stub, "bob@acme.example.com").await.is_ok());
}

async fn what_is_deleted_lets_nobody_in(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let admin = world.admin(&node, "admin@example.org").await;
    let acme = connected(world, &node, &admin, &stub, "acme", "acme.example.com").await;
    stub.person(&person(world, "bob", "bob@acme.example.com"));
    let bob = sign_in(&node, &stub, "bob@acme.example.com").await.unwrap();
    let back = browse(&stub, &start(&node, "bob@acme.example.com").await.unwrap()).await;
    for _ in 0..2 {
        assert_eq!(delete(&node, &acme.owner, &acme).await, Ok(()));
    }
    assert_eq!(finish(&node, &back).await, Err(Reason::Unauthenticated));
    assert_eq!(start(&node, "bob@acme.example.com").await, Err(Reason::IdentityProviderNotEnabled));
    assert_eq!(get(&node, &acme.owner, &acme).await, Err(Reason::NotFound));
    assert!(node.me(&bob).await.is_ok() && node.refresh(&bob).await.is_ok());
}

async fn without_a_seat_nobody_gets_in(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let admin = world.admin(&node, "admin@example.org").await;
    let acme = connected(world, &node, &admin, &stub, "acme", "acme.example.com").await;
    world.known.sell(&acme.owner_id, 2);
    stub.person(&person(world, "bob", "bob@acme.example.com"));
    let bob = sign_in(&node, &stub, "bob@acme.example.com").await.unwrap();
    stub.person(&person(world, "eve", "eve@acme.example.com"));
    let sessions = "SELECT COUNT(*) FROM sessions";
    let before = world.column::<i64>(sessions).await;
    assert_eq!(sign_in(&node, &stub, "eve@acme.example.com").await, Err(Reason::QuotaExceeded));
    assert_eq!(world.column::<i64>(sessions).await, before);
    stub.person(&person(world, "bob", "bob@acme.example.com"));
    assert_eq!(sub(&sign_in(&node, &stub, "bob@acme.example.com").await.unwrap()), sub(&bob));
}
