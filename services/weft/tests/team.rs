//! A team as its people meet it: an owner who pays for seats, mails with invitations, members on the owner's plan.
use std::time::Duration;

use serde_json::{Value, json};
use weft_testing::eventually;
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;
use weft_testing::smtp::{MailServer, link_token};
use weft_testing::stripe::StripeStub;
use weft_testing::{postgres, redis};

use crate::WEFT;

/// A mesh that sells through a stub of Stripe's and mails to `mail`.
fn office(stripe: &StripeStub, mail: &MailServer) -> Options {
    let settings = [
        ("STRIPE_API_BASE", stripe.url().to_owned()),
        ("STRIPE_SECRET_KEY", stripe.secret_key().to_owned()),
        ("STRIPE_WEBHOOK_SECRET", stripe.webhook_secret().to_owned()),
        ("SMTP_URL", mail.url.clone()),
    ];
    let environment = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Options { environment, ..Options::new(WEFT) }
}

async fn tier(person: &Persona) -> Value {
    person.get("/api/v1/auth/me").await.1["tier"].clone()
}

/// Waits for at most a second.
async fn until_on(person: &Persona, plan: &str) {
    let what = format!("{} on {plan}", person.email);
    eventually(&what, Duration::from_secs(1), || async { tier(person).await == plan }).await;
}

/// Whoever is invited accepts with the token of their mail.
async fn accept(mail: &MailServer, person: &Persona, number: usize) -> (u16, Value) {
    let received = mail.mail(number).await;
    assert_eq!(received.to, std::slice::from_ref(&person.email));
    let token = link_token(&received.data).1;
    person.post("/api/v1/organisations/invitations/accept", &json!({"token": token})).await
}

async fn a_team_of_three(mesh: &Mesh, stripe: &StripeStub, mail: &MailServer) {
    let edge = mesh.edge();
    let webhook = format!("{edge}/api/v1/billing/webhook");
    let owner = Persona::register(edge, "adiuva", "owner@example.com").await;
    let (status, checkout) = owner.post("/api/v1/billing/checkout", &json!({"tier": "team", "seats": 3})).await;
    assert_eq!(status, 200, "{checkout}");
    for event in stripe.complete_checkout(checkout["session_id"].as_str().unwrap()) {
        assert_eq!(stripe.deliver(&webhook, &event).await.status, 200);
    }
    until_on(&owner, "team").await;

    let (status, made) = owner.post("/api/v1/organisations", &json!({"name": "Acme"})).await;
    assert_eq!((status, &made["role"]), (200, &json!("owner")), "{made}");
    let path = format!("/api/v1/organisations/{}", made["id"].as_str().unwrap());
    let mut people = Vec::new();
    for name in ["ben", "cid", "dan"] {
        let person = Persona::register(edge, "adiuva", &format!("{name}@example.com")).await;
        let (status, answer) = owner.post(&format!("{path}/invitations"), &json!({"email": person.email})).await;
        assert_eq!(status, 200, "{answer}");
        mail.mail(people.len() + 1).await;
        people.push(person);
    }
    let [ben, cid, dan] = &people[..] else { panic!() };
    for (number, person) in [(1, ben), (2, cid)] {
        assert_eq!(tier(person).await, "free");
        let (status, joined) = accept(mail, person, number).await;
        assert_eq!((status, &joined["role"]), (200, &json!("member")), "{joined}");
        until_on(person, "team").await;
    }
    let (status, refused) = accept(mail, dan, 3).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("quota_exceeded")), "{refused}");
    assert_eq!(tier(dan).await, "free");
    let (status, me) = ben.get("/api/v1/auth/me").await;
    assert_eq!((status, &me["email_verified"]), (200, &json!(true)), "the link came by mail");

    // Fewer seats than members are refused, whatever else holds.
    let (status, refused) = owner.put("/api/v1/billing/subscription", &json!({"seats": 2})).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("failed_precondition")), "{refused}");

    let (_, me) = ben.get("/api/v1/auth/me").await;
    let (status, removed) = owner.delete(&format!("{path}/members/{}", me["id"].as_str().unwrap())).await;
    assert_eq!((status, &removed), (200, &json!({"ok": true})));
    until_on(ben, "free").await;
    let (status, gone) = ben.get(&path).await;
    assert_eq!((status, &gone["error"]["code"]), (404, &json!("not_found")));
    let (status, joined) = accept(mail, dan, 3).await;
    assert_eq!((status, &joined["members"]), (200, &json!(3)), "{joined}");
    until_on(dan, "team").await;
    assert_eq!(owner.put("/api/v1/billing/subscription", &json!({"seats": 2})).await.0, 400);

    let (status, left) = owner.delete(&path).await;
    assert_eq!((status, &left), (200, &json!({"ok": true})));
    for person in [cid, dan] {
        until_on(person, "free").await;
    }
    until_on(&owner, "team").await;
    let (status, fewer) = owner.put("/api/v1/billing/subscription", &json!({"seats": 1})).await;
    assert_eq!((status, &fewer["seats"]), (200, &json!(1)), "{fewer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_has_as_many_members_as_seats_on_sqlite() {
    let (stripe, mail) = (StripeStub::start().await, MailServer::start().await);
    let mesh = Mesh::start(office(&stripe, &mail)).await;
    a_team_of_three(&mesh, &stripe, &mail).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_has_as_many_members_as_seats_on_postgresql() {
    let (stripe, mail) = (StripeStub::start().await, MailServer::start().await);
    let mut options = office(&stripe, &mail);
    options.postgres = Some(postgres::shared().await.database().await);
    options.redis = Some(redis::shared().await.url());
    let mesh = Mesh::start(options).await;
    a_team_of_three(&mesh, &stripe, &mail).await;
}
