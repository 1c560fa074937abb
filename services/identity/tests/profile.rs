//! What the owner of an account says of themselves.
use weft_core::Reason;
use weft_proto::identity::v1::{GetProfileRequest, Profile, UpdateProfileRequest};
use weft_testing::on_both_databases;

use crate::harness::{Node, PLAN, Session, World, reason};

on_both_databases! {
    a_profile_begins_with_what_me_says
    what_is_named_is_changed_and_the_rest_stays
    a_field_over_its_limit_changes_nothing
    without_billing_nothing_is_changed
}

async fn read(node: &Node, tokens: &Session) -> Profile {
    node.call(tokens, "/weft.identity.v1.ProfileService/GetProfile", GetProfileRequest {}).await.unwrap()
}

async fn change(node: &Node, tokens: &Session, change: UpdateProfileRequest) -> Result<Profile, Reason> {
    let answer = node.call(tokens, "/weft.identity.v1.ProfileService/UpdateProfile", change).await;
    answer.map_err(|status| reason(&status))
}

async fn a_profile_begins_with_what_me_says(world: &World) {
    let node = world.node().await;
    let tokens = node.register("Ana@example.com").await;
    let me = node.me(&tokens).await.unwrap();
    let expected = Profile {
        id: me.id,
        email: me.email,
        tier: PLAN.to_owned(),
        product: me.product,
        created_at: me.created_at,
        roles: vec!["user".to_owned()],
        ..Profile::default()
    };
    assert_eq!(read(&node, &tokens).await, expected);
}

async fn what_is_named_is_changed_and_the_rest_stays(world: &World) {
    let node = world.node().await;
    let (ana, bob) = (node.register("ana@example.com").await, node.register("bob@example.com").await);
    let whole = UpdateProfileRequest {
        display_name: Some(" Ana 🦊 ".to_owned()),
        locale: Some("pt-BR".to_owned()),
        time_zone: Some("America/Sao_Paulo".to_owned()),
        avatar_url: Some("https://cdn.example.com/ana.png".to_owned()),
    };
    let changed = change(&node, &ana, whole).await.unwrap();
    assert_eq!((changed.display_name.as_str(), changed.time_zone.as_str()), ("Ana 🦊", "America/Sao_Paulo"));
    let part =
        UpdateProfileRequest { locale: Some("de".to_owned()), avatar_url: Some(String::new()), ..Default::default() };
    let changed = change(&node, &ana, part).await.unwrap();
    assert_eq!(changed, read(&node, &ana).await);
    let told = [&changed.display_name, &changed.locale, &changed.time_zone, &changed.avatar_url];
    assert_eq!(told, ["Ana 🦊", "de", "America/Sao_Paulo", ""]);
    assert_eq!(change(&node, &ana, UpdateProfileRequest::default()).await.unwrap(), changed);
    assert_eq!(read(&node, &bob).await.display_name, "");
}

async fn a_field_over_its_limit_changes_nothing(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    for wrong in [
        UpdateProfileRequest { display_name: Some("x".repeat(101)), ..Default::default() },
        UpdateProfileRequest { display_name: Some("a\0b".to_owned()), ..Default::default() },
        UpdateProfileRequest { locale: Some("pt_BR".to_owned()), ..Default::default() },
        UpdateProfileRequest { time_zone: Some("../etc".to_owned()), ..Default::default() },
        UpdateProfileRequest { avatar_url: Some("javascript:alert(1)".to_owned()), ..Default::default() },
    ] {
        let wrong = UpdateProfileRequest { locale: wrong.locale.or(Some("de".to_owned())), ..wrong };
        assert_eq!(change(&node, &ana, wrong).await, Err(Reason::InvalidArgument));
    }
    assert_eq!(read(&node, &ana).await.locale, "");
}

async fn without_billing_nothing_is_changed(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    world.billing.go_away();
    let wish = UpdateProfileRequest { locale: Some("de".to_owned()), ..Default::default() };
    assert_eq!(change(&node, &ana, wish).await, Err(Reason::Unavailable));
    let kept: Vec<Option<String>> = world.column("SELECT locale FROM accounts").await;
    assert_eq!(kept, [None]);
}
