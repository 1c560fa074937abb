//! Organisations: who is in them, what they may do there, and the seats they sit on.
use std::time::Duration;

use futures_util::future::join_all;
use tonic::Status;
use weft_core::{Reason, new_id};
use weft_identity::Config;
use weft_proto::identity::v1::{
    AcceptInvitationRequest, CreateInvitationRequest, CreateOrganisationRequest, DeleteOrganisationRequest,
    DeleteOrganisationResponse, GetOrganisationRequest, Invitation, ListInvitationsRequest, ListInvitationsResponse,
    ListMembersRequest, ListMembersResponse, ListOrganisationsRequest, ListOrganisationsResponse, Member, Organisation,
    RemoveMemberRequest, RemoveMemberResponse, RevokeInvitationRequest, RevokeInvitationResponse, UpdateMemberRequest,
    UpdateOrganisationRequest,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{MailServer, Node, Session, World, claim, link_token, reason};

on_both_databases! {
    an_organisation_is_made_listed_renamed_and_deleted
    who_is_no_member_learns_nothing
    roles_say_who_may_do_what
    who_is_invited_joins_with_the_link_of_the_mail
    an_invitation_is_void_when_replaced_withdrawn_old_or_for_somebody_else
    what_somebody_invited_who_runs_it_no_more_is_void
    invitations_are_limited
    of_twenty_who_accept_at_once_as_many_join_as_there_are_seats
    the_same_acceptance_many_times_at_once_makes_one_member
    who_is_removed_is_refused_at_once_and_the_seat_is_free
    seats_are_released_though_billing_was_away
    who_does_not_join_after_all_keeps_no_seat
    a_seat_that_a_crash_left_is_released_when_its_time_is_over
    a_member_without_a_seat_is_given_one
    who_sits_elsewhere_has_to_leave_first
    changes_at_the_same_time_leave_one_owner_and_no_second_role
    lists_have_pages_that_are_their_callers_own
    what_happens_is_in_the_audit
}

/// What a call came to: an answer, or why not.
type Outcome<T> = Result<T, Reason>;

/// A server that mails, with its mail server.
struct Office {
    node: Node,
    mail: MailServer,
}

/// Calls an RPC of the service.
macro_rules! ask {
    ($node:expr, $who:expr, $rpc:literal, $message:expr) => {
        $node.call(&$who.tokens, concat!("/weft.identity.v1.OrganisationService/", $rpc), $message)
    };
}

/// Somebody who is signed in.
struct Person {
    id: String,
    email: String,
    tokens: Session,
}

impl Office {
    async fn open(world: &World) -> Office {
        let mail = MailServer::start().await;
        Office { node: mailing(world, &mail).await, mail }
    }

    async fn person(&self, name: &str) -> Person {
        let email = format!("{name}@example.com");
        let tokens = self.node.register(&email).await;
        Person { id: claim(&tokens, "sub").as_str().unwrap().to_owned(), email, tokens }
    }

    async fn organisation(&self, owner: &Person) -> String {
        let name = "Acme".to_owned();
        let made: Organisation =
            ask!(self.node, owner, "CreateOrganisation", CreateOrganisationRequest { name }).await.unwrap();
        made.id
    }

    async fn invite(&self, who: &Person, organisation: &str, email: &str, role: &str) -> Result<Invitation, Status> {
        let message = CreateInvitationRequest {
            organisation_id: organisation.to_owned(),
            email: email.to_owned(),
            role: role.to_owned(),
        };
        ask!(self.node, who, "CreateInvitation", message).await
    }

    /// Invites somebody; the token of the mail.
    async fn invited(&self, owner: &Person, organisation: &str, email: &str, role: &str) -> String {
        let known = self.mail.received().len();
        self.invite(owner, organisation, email, role).await.unwrap();
        link_token(&self.mail.mail(known + 1).await.data).1
    }

    async fn accept(&self, who: &Person, token: &str) -> Outcome<Organisation> {
        accept(&self.node, who, token).await
    }

    /// Somebody new in the organisation.
    async fn member(&self, owner: &Person, organisation: &str, name: &str, role: &str) -> Person {
        let person = self.person(name).await;
        let token = self.invited(owner, organisation, &person.email, role).await;
        self.accept(&person, &token).await.unwrap();
        person
    }

    async fn members(&self, who: &Person, organisation: &str) -> Outcome<Vec<Member>> {
        let message = ListMembersRequest { organisation_id: organisation.to_owned(), ..Default::default() };
        let answer: Result<ListMembersResponse, _> = ask!(self.node, who, "ListMembers", message).await;
        answer.map(|answer| answer.members).map_err(|status| reason(&status))
    }

    async fn remove(&self, who: &Person, organisation: &str, whom: &Person) -> Outcome<()> {
        let message = RemoveMemberRequest { organisation_id: organisation.to_owned(), account_id: whom.id.clone() };
        let answer: Result<RemoveMemberResponse, _> = ask!(self.node, who, "RemoveMember", message).await;
        answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
    }

    async fn give(&self, who: &Person, organisation: &str, whom: &Person, role: &str) -> Outcome<Member> {
        let message = UpdateMemberRequest {
            organisation_id: organisation.to_owned(),
            account_id: whom.id.clone(),
            role: role.to_owned(),
        };
        ask!(self.node, who, "UpdateMember", message).await.map_err(|status| reason(&status))
    }

    async fn delete(&self, who: &Person, organisation: &str) -> Outcome<()> {
        let message = DeleteOrganisationRequest { organisation_id: organisation.to_owned() };
        let answer: Result<DeleteOrganisationResponse, _> = ask!(self.node, who, "DeleteOrganisation", message).await;
        answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
    }

    async fn rename(&self, who: &Person, organisation: &str, name: &str) -> Outcome<Organisation> {
        let message = UpdateOrganisationRequest { organisation_id: organisation.to_owned(), name: name.to_owned() };
        ask!(self.node, who, "UpdateOrganisation", message).await.map_err(|status| reason(&status))
    }
}

async fn mailing(world: &World, mail: &MailServer) -> Node {
    let smtp_url = Some(mail.url.clone().into());
    let weft_app_url = "https://app.example.com".to_owned();
    world.node_with(Config { smtp_url, weft_app_url, ..world.config.clone() }).await
}

async fn accept(node: &Node, who: &Person, token: &str) -> Outcome<Organisation> {
    let message = AcceptInvitationRequest { token: token.to_owned() };
    ask!(node, who, "AcceptInvitation", message).await.map_err(|status| reason(&status))
}

/// Waits until exactly these sit on the seats of an owner.
async fn seated(world: &World, owner: &Person, people: &[&Person]) {
    let mut wanted: Vec<String> = people.iter().map(|person| person.id.clone()).collect();
    wanted.sort();
    eventually("the right seats", Duration::from_secs(10), async || world.known.seated(&owner.id) == wanted).await;
}

async fn an_organisation_is_made_listed_renamed_and_deleted(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    let create = |name: &str| CreateOrganisationRequest { name: name.to_owned() };
    for bad in ["", "   ", "a\nb", &"ü".repeat(101)] {
        let answer: Result<Organisation, _> = ask!(office.node, ana, "CreateOrganisation", create(bad)).await;
        assert_eq!(reason(&answer.unwrap_err()), Reason::InvalidArgument, "{bad:?}");
    }
    let mut ids = Vec::new();
    for number in 0..10 {
        let name = format!(" Team {number} ");
        let made: Organisation = ask!(office.node, ana, "CreateOrganisation", create(&name)).await.unwrap();
        assert_eq!((made.name.as_str(), made.role.as_str(), made.members), (name.trim(), "owner", 1));
        assert_eq!((&made.owner_id, made.created_at), (&ana.id, world.clock.now_ms()));
        ids.push(made.id);
    }
    let eleventh: Result<Organisation, _> = ask!(office.node, ana, "CreateOrganisation", create("Eleven")).await;
    assert_eq!(reason(&eleventh.unwrap_err()), Reason::QuotaExceeded);

    let list = ListOrganisationsRequest::default();
    let listed: ListOrganisationsResponse = ask!(office.node, ana, "ListOrganisations", list).await.unwrap();
    let listed: Vec<String> = listed.organisations.into_iter().map(|organisation| organisation.id).collect();
    assert_eq!(listed, ids, "oldest first");
    assert_eq!(office.rename(&ana, &ids[0], "New").await.unwrap().name, "New");
    let get = GetOrganisationRequest { organisation_id: ids[0].clone() };
    let got: Organisation = ask!(office.node, ana, "GetOrganisation", get.clone()).await.unwrap();
    assert_eq!(got.name, "New");
    assert_eq!(office.delete(&ana, &ids[0]).await, Ok(()));
    let gone: Result<Organisation, _> = ask!(office.node, ana, "GetOrganisation", get).await;
    assert_eq!(reason(&gone.unwrap_err()), Reason::NotFound);
    let again: Result<Organisation, _> = ask!(office.node, ana, "CreateOrganisation", create("Eleven")).await;
    assert!(again.is_ok());
}

async fn who_is_no_member_learns_nothing(world: &World) {
    let office = Office::open(world).await;
    let (ana, eve) = (office.person("ana").await, office.person("eve").await);
    let theirs = office.organisation(&ana).await;
    let token = office.invited(&ana, &theirs, "ben@example.com", "").await;
    let invitations: Vec<String> = world.column("SELECT id FROM invitations").await;
    let told = async |id: &str| {
        let organisation_id = id.to_owned();
        let account_id = ana.id.clone();
        let node = &office.node;
        let mut told: Vec<Status> = Vec::new();
        macro_rules! refused {
            ($rpc:literal, $answer:ty, $message:expr) => {{
                let answer: Result<$answer, Status> = ask!(node, eve, $rpc, $message).await;
                told.push(answer.expect_err($rpc));
            }};
        }
        let id = || organisation_id.clone();
        let account = || account_id.clone();
        refused!("GetOrganisation", Organisation, GetOrganisationRequest { organisation_id: id() });
        let rename = UpdateOrganisationRequest { organisation_id: id(), name: "Mine".into() };
        refused!("UpdateOrganisation", Organisation, rename);
        refused!("DeleteOrganisation", DeleteOrganisationResponse, DeleteOrganisationRequest { organisation_id: id() });
        let list = ListMembersRequest { organisation_id: id(), ..Default::default() };
        refused!("ListMembers", ListMembersResponse, list);
        let role = UpdateMemberRequest { organisation_id: id(), account_id: account(), role: "member".into() };
        refused!("UpdateMember", Member, role);
        let remove = RemoveMemberRequest { organisation_id: id(), account_id: account() };
        refused!("RemoveMember", RemoveMemberResponse, remove);
        let oneself = RemoveMemberRequest { organisation_id: id(), account_id: eve.id.clone() };
        refused!("RemoveMember", RemoveMemberResponse, oneself);
        let invite = CreateInvitationRequest { organisation_id: id(), email: eve.email.clone(), role: String::new() };
        refused!("CreateInvitation", Invitation, invite);
        let list = ListInvitationsRequest { organisation_id: id(), ..Default::default() };
        refused!("ListInvitations", ListInvitationsResponse, list);
        let revoke = RevokeInvitationRequest { organisation_id: id(), invitation_id: invitations[0].clone() };
        refused!("RevokeInvitation", RevokeInvitationResponse, revoke);
        told.iter().map(|status| (reason(status), status.message().to_owned())).collect::<Vec<_>>()
    };
    let foreign = told(&theirs).await;
    assert!(foreign.iter().all(|(reason, _)| *reason == Reason::NotFound), "{foreign:?}");
    assert_eq!(foreign, told(&new_id()).await);
    assert_eq!(foreign, told("no id at all").await);
    assert_eq!(office.accept(&eve, &token).await, Err(Reason::InvalidArgument), "it is for another address");
    assert_eq!(office.members(&ana, &theirs).await.unwrap().len(), 1);
}

async fn roles_say_who_may_do_what(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 10);
    let id = office.organisation(&ana).await;
    let bob = office.member(&ana, &id, "bob", "admin").await;
    let cid = office.member(&bob, &id, "cid", "").await;
    let dan = office.member(&bob, &id, "dan", "member").await;
    let eva = office.member(&bob, &id, "eva", "admin").await;
    let denied = Err(Reason::PermissionDenied);

    // A member sees who is there and may leave, nothing else.
    assert_eq!(office.members(&cid, &id).await.unwrap().len(), 5);
    assert_eq!(office.rename(&cid, &id, "Mine").await, Err(Reason::PermissionDenied));
    assert_eq!(office.give(&cid, &id, &dan, "admin").await, Err(Reason::PermissionDenied));
    assert_eq!(office.give(&cid, &id, &cid, "admin").await, Err(Reason::PermissionDenied));
    assert_eq!(office.remove(&cid, &id, &dan).await, denied);
    assert_eq!(office.delete(&cid, &id).await, denied);
    let invited = office.invite(&cid, &id, "new@example.com", "").await;
    assert_eq!(reason(&invited.unwrap_err()), Reason::PermissionDenied);

    // An admin runs it, but for admins and the owner.
    assert_eq!(office.rename(&bob, &id, "Better").await.unwrap().name, "Better");
    assert_eq!(office.give(&bob, &id, &eva, "member").await, Err(Reason::PermissionDenied));
    assert_eq!(office.give(&bob, &id, &ana, "member").await, Err(Reason::PermissionDenied));
    assert_eq!(office.remove(&bob, &id, &eva).await, denied);
    assert_eq!(office.remove(&bob, &id, &ana).await, denied);
    assert_eq!(office.delete(&bob, &id).await, denied);
    for role in ["owner", "", "Admin"] {
        assert_eq!(office.give(&bob, &id, &cid, role).await, Err(Reason::InvalidArgument), "{role}");
    }
    assert_eq!(office.give(&bob, &id, &cid, "admin").await.unwrap().role, "admin");
    assert_eq!(office.give(&bob, &id, &cid, "member").await, Err(Reason::PermissionDenied), "cid is an admin now");
    assert_eq!(office.remove(&bob, &id, &dan).await, Ok(()));
    assert_eq!(office.remove(&bob, &id, &dan).await, Err(Reason::NotFound));

    // The owner changes everybody but themselves.
    assert_eq!(office.give(&ana, &id, &eva, "member").await.unwrap().role, "member");
    assert_eq!(office.give(&ana, &id, &ana, "member").await, Err(Reason::PermissionDenied));
    assert_eq!(office.remove(&ana, &id, &ana).await, denied);
    assert_eq!(office.remove(&ana, &id, &cid).await, Ok(()));
    assert_eq!(office.remove(&bob, &id, &bob).await, Ok(()), "who wants to leaves");
    let left: Vec<String> = office.members(&ana, &id).await.unwrap().into_iter().map(|one| one.account_id).collect();
    assert_eq!(left, [ana.id.clone(), eva.id.clone()], "longest first");
    seated(world, &ana, &[&ana, &eva]).await;
}

async fn who_is_invited_joins_with_the_link_of_the_mail(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 3);
    let id = office.organisation(&ana).await;
    let invitation = office.invite(&ana, &id, "Ben@Example.com", "admin").await.unwrap();
    assert_eq!((invitation.role.as_str(), invitation.email.as_str()), ("admin", "Ben@Example.com"));
    let mail = office.mail.mail(1).await;
    assert_eq!(mail.to, ["Ben@Example.com"]);
    assert!(mail.data.contains("Subject: An invitation to \"Acme\" at "), "{}", mail.data);
    let (base, token) = link_token(&mail.data);
    assert_eq!(base, "https://app.example.com/accept-invitation?product=adiuva");
    let stored: Vec<String> = world.column("SELECT hash FROM mail_links").await;
    assert!(stored.len() == 1 && !stored[0].contains(&token), "{stored:?}");

    // They register because of the mail.
    let ben = office.person("ben").await;
    assert!(!office.node.me(&ben.tokens).await.unwrap().email_verified);
    let joined = office.accept(&ben, &token).await.unwrap();
    assert_eq!((&joined.id, joined.role.as_str(), joined.members), (&id, "admin", 2));
    assert!(office.node.me(&ben.tokens).await.unwrap().email_verified, "the link came by mail");
    assert_eq!(office.accept(&ben, &token).await, Ok(joined), "repeated, it is the same");
    seated(world, &ana, &[&ana, &ben]).await;
    let list = ListInvitationsRequest { organisation_id: id.clone(), ..Default::default() };
    let open: ListInvitationsResponse = ask!(office.node, ana, "ListInvitations", list).await.unwrap();
    assert!(open.invitations.is_empty(), "{open:?}");
    let again = office.invite(&ana, &id, "BEN@example.com", "").await;
    assert_eq!(reason(&again.unwrap_err()), Reason::AlreadyExists);
    assert_eq!(office.remove(&ana, &id, &ben).await, Ok(()));
    assert_eq!(office.accept(&ben, &token).await, Err(Reason::InvalidArgument), "the link lets nobody back in");
}

async fn an_invitation_is_void_when_replaced_withdrawn_old_or_for_somebody_else(world: &World) {
    let office = Office::open(world).await;
    let (ana, ben, eve) = (office.person("ana").await, office.person("ben").await, office.person("eve").await);
    world.known.sell(&ana.id, 3);
    let id = office.organisation(&ana).await;
    let invalid = Err(Reason::InvalidArgument);
    let first = office.invited(&ana, &id, &ben.email, "").await;
    let second = office.invited(&ana, &id, &ben.email, "").await;
    assert_eq!(office.accept(&ben, &first).await, invalid, "another one took its place");
    assert_eq!(office.accept(&eve, &second).await, invalid, "it is for another address");
    for wrong in ["", "x", &"A".repeat(43), &format!("{second}A")] {
        assert_eq!(office.accept(&ben, wrong).await, invalid, "{wrong}");
    }
    let list = ListInvitationsRequest { organisation_id: id.clone(), ..Default::default() };
    let open: ListInvitationsResponse = ask!(office.node, ana, "ListInvitations", list).await.unwrap();
    let [invitation] = &open.invitations[..] else { panic!("{open:?}") };
    let revoke = RevokeInvitationRequest { organisation_id: id.clone(), invitation_id: invitation.id.clone() };
    let _: RevokeInvitationResponse = ask!(office.node, ana, "RevokeInvitation", revoke.clone()).await.unwrap();
    let again: Result<RevokeInvitationResponse, _> = ask!(office.node, ana, "RevokeInvitation", revoke).await;
    assert_eq!(reason(&again.unwrap_err()), Reason::NotFound);
    assert_eq!(office.accept(&ben, &second).await, invalid, "it was withdrawn");
    let third = office.invited(&ana, &id, &ben.email, "").await;
    world.pass(7 * 24 * 3600);
    let ben = Person { tokens: office.node.login(&ben.email).await.unwrap(), ..ben };
    assert_eq!(office.accept(&ben, &third).await, invalid, "it is too old");
    let ana = Person { tokens: office.node.login(&ana.email).await.unwrap(), ..ana };
    assert_eq!(world.known.seated(&ana.id), Vec::<String>::new());
    let fourth = office.invited(&ana, &id, &ben.email, "").await;
    assert!(office.accept(&ben, &fourth).await.is_ok());
}

async fn what_somebody_invited_who_runs_it_no_more_is_void(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 9);
    let id = office.organisation(&ana).await;
    let (ben, cid) = (office.member(&ana, &id, "ben", "admin").await, office.member(&ana, &id, "cid", "admin").await);
    let (dan, eve, fay) = (office.person("dan").await, office.person("eve").await, office.person("fay").await);
    let of_ben = office.invited(&ben, &id, &dan.email, "admin").await;
    let of_cid = office.invited(&cid, &id, &eve.email, "admin").await;
    let of_ana = office.invited(&ana, &id, &fay.email, "member").await;
    office.remove(&ana, &id, &ben).await.unwrap();
    assert_eq!(office.accept(&dan, &of_ben).await.unwrap_err(), Reason::InvalidArgument, "they were removed");
    office.give(&ana, &id, &cid, "member").await.unwrap();
    assert_eq!(office.accept(&eve, &of_cid).await.unwrap_err(), Reason::InvalidArgument, "they are a member only");
    assert!(office.accept(&fay, &of_ana).await.is_ok());
}

async fn invitations_are_limited(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    let id = office.organisation(&ana).await;
    for bad in ["", "no address", "a@b@c.d"] {
        assert_eq!(reason(&office.invite(&ana, &id, bad, "").await.unwrap_err()), Reason::InvalidArgument, "{bad}");
    }
    let owner = office.invite(&ana, &id, "ben@example.com", "owner").await;
    assert_eq!(reason(&owner.unwrap_err()), Reason::InvalidArgument);
    for _ in 0..3 {
        office.invite(&ana, &id, "ben@example.com", "").await.unwrap();
    }
    let fourth = office.invite(&ana, &id, "Ben@example.com", "").await;
    assert_eq!(reason(&fourth.unwrap_err()), Reason::RateLimited, "three mails a day to one address");
    for number in 1..50 {
        office.invite(&ana, &id, &format!("n{number}@example.com"), "").await.unwrap();
    }
    let more = office.invite(&ana, &id, "one-more@example.com", "").await;
    assert_eq!(reason(&more.unwrap_err()), Reason::QuotaExceeded);
    assert!(office.invite(&ana, &id, "n1@example.com", "").await.is_ok(), "it takes the place of another");
    world.pass(24 * 3600);
    let ana = Person { tokens: office.node.login(&ana.email).await.unwrap(), ..ana };
    assert!(office.invite(&ana, &id, "ben@example.com", "").await.is_ok());
}

async fn of_twenty_who_accept_at_once_as_many_join_as_there_are_seats(world: &World) {
    let office = Office::open(world).await;
    let other = mailing(world, &office.mail).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 3);
    let id = office.organisation(&ana).await;
    let mut people = Vec::new();
    for number in 0..20 {
        let person = office.person(&format!("p{number}")).await;
        let token = office.invited(&ana, &id, &person.email, "").await;
        people.push((person, token));
    }
    let tries = people.iter().enumerate().map(|(number, (person, token))| {
        let node = if number % 2 == 0 { &office.node } else { &other };
        accept(node, person, token)
    });
    let outcomes = join_all(tries).await;
    let joined: Vec<&Person> =
        people.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|((person, _), _)| person).collect();
    // The owner is one of the three.
    assert_eq!(joined.len(), 2, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Reason::QuotaExceeded))), "{outcomes:?}");
    assert_eq!(office.members(&ana, &id).await.unwrap().len(), 3);
    seated(world, &ana, &[&ana, joined[0], joined[1]]).await;
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM seat_intents").await, [0]);

    // Who found none left gets one when there is.
    world.known.sell(&ana.id, 4);
    let (late, token) = people.iter().zip(&outcomes).find(|(_, outcome)| outcome.is_err()).unwrap().0;
    assert!(office.accept(late, token).await.is_ok());
    assert_eq!(office.members(&ana, &id).await.unwrap().len(), 4);
}

async fn the_same_acceptance_many_times_at_once_makes_one_member(world: &World) {
    let office = Office::open(world).await;
    let other = mailing(world, &office.mail).await;
    let (ana, ben) = (office.person("ana").await, office.person("ben").await);
    world.known.sell(&ana.id, 3);
    let id = office.organisation(&ana).await;
    let token = office.invited(&ana, &id, &ben.email, "").await;
    let tries = (0..8).map(|number| accept(if number % 2 == 0 { &office.node } else { &other }, &ben, &token));
    let outcomes = join_all(tries).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(office.members(&ana, &id).await.unwrap().len(), 2);
    seated(world, &ana, &[&ana, &ben]).await;
    let joined: Vec<i64> = world.column("SELECT COUNT(*) FROM audit_events WHERE kind = 'member_joined'").await;
    assert_eq!(joined, [1]);
}

async fn who_is_removed_is_refused_at_once_and_the_seat_is_free(world: &World) {
    let office = Office::open(world).await;
    let other = Office { node: mailing(world, &office.mail).await, mail: MailServer::start().await };
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 2);
    let id = office.organisation(&ana).await;
    let ben = office.member(&ana, &id, "ben", "admin").await;
    assert!(other.members(&ben, &id).await.is_ok());
    assert_eq!(office.remove(&ana, &id, &ben).await, Ok(()));
    assert_eq!(other.members(&ben, &id).await, Err(Reason::NotFound));
    assert_eq!(other.rename(&ben, &id, "Mine").await, Err(Reason::NotFound));
    let invite = other.invite(&ben, &id, "friend@example.com", "").await;
    assert_eq!(reason(&invite.unwrap_err()), Reason::NotFound);
    // Back in at once: the seat that is being released is waited for.
    let token = office.invited(&ana, &id, &ben.email, "").await;
    assert!(office.accept(&ben, &token).await.is_ok());
    seated(world, &ana, &[&ana, &ben]).await;
    assert_eq!(office.remove(&ben, &id, &ben).await, Ok(()));
    seated(world, &ana, &[]).await;
    office.member(&ana, &id, "cid", "").await;
    assert_eq!(office.delete(&ana, &id).await, Ok(()));
    seated(world, &ana, &[]).await;
    eventually("the payer to be forgotten", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT COUNT(*) FROM seat_payers").await == [0]
    })
    .await;
}

async fn seats_are_released_though_billing_was_away(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 5);
    let id = office.organisation(&ana).await;
    let ben = office.member(&ana, &id, "ben", "").await;
    let cid = office.member(&ana, &id, "cid", "").await;
    let dan = office.person("dan").await;
    let token = office.invited(&ana, &id, &dan.email, "").await;
    world.billing.go_away();
    assert_eq!(office.accept(&dan, &token).await, Err(Reason::Unavailable));
    assert_eq!(office.remove(&ana, &id, &ben).await, Ok(()), "removing needs no billing");
    assert_eq!(office.members(&ana, &id).await.unwrap().len(), 2);
    eventually("a try", Duration::from_secs(20), async || {
        world.column::<i64>("SELECT failures FROM seat_payers").await >= vec![1]
    })
    .await;
    assert_eq!(world.known.seated(&ana.id).len(), 3);
    // Another process goes on with it.
    let Office { node, mail } = office;
    node.stop().await;
    let office = Office { node: mailing(world, &mail).await, mail };
    world.billing.come_back();
    world.pass(61);
    seated(world, &ana, &[&ana, &cid]).await;
    eventually("the invited to join", Duration::from_secs(10), async || office.accept(&dan, &token).await.is_ok())
        .await;
    seated(world, &ana, &[&ana, &cid, &dan]).await;
}

async fn who_does_not_join_after_all_keeps_no_seat(world: &World) {
    let office = Office::open(world).await;
    let (ana, ben) = (office.person("ana").await, office.person("ben").await);
    world.known.sell(&ana.id, 5);
    let id = office.organisation(&ana).await;
    let cid = office.member(&ana, &id, "cid", "").await;
    let token = office.invited(&ana, &id, &ben.email, "").await;
    let list = ListInvitationsRequest { organisation_id: id.clone(), ..Default::default() };
    let open: ListInvitationsResponse = ask!(office.node, ana, "ListInvitations", list).await.unwrap();
    let revoke = RevokeInvitationRequest { organisation_id: id.clone(), invitation_id: open.invitations[0].id.clone() };
    // The invitation is withdrawn after billing has given the seat and before identity has heard of it.
    let held_back = world.known.hold_back().await;
    let accepting = office.accept(&ben, &token);
    let withdrawing = async {
        eventually("the intent", Duration::from_secs(2), async || {
            world.column::<i64>("SELECT COUNT(*) FROM seat_intents").await == [1]
        })
        .await;
        let _: RevokeInvitationResponse = ask!(office.node, ana, "RevokeInvitation", revoke).await.unwrap();
        drop(held_back);
    };
    let (outcome, ()) = tokio::join!(accepting, withdrawing);
    assert_eq!(outcome, Err(Reason::InvalidArgument));
    seated(world, &ana, &[&ana, &cid]).await;

    // The answer is lost: whether the seat was given is not known, and it is not kept.
    let token = office.invited(&ana, &id, &ben.email, "").await;
    let held_back = world.known.hold_back().await;
    assert_eq!(office.accept(&ben, &token).await, Err(Reason::Unavailable));
    drop(held_back);
    seated(world, &ana, &[&ana, &cid]).await;
    assert!(office.accept(&ben, &token).await.is_ok(), "the invitation was not used up by that");
    seated(world, &ana, &[&ana, &ben, &cid]).await;
}

async fn a_seat_that_a_crash_left_is_released_when_its_time_is_over(world: &World) {
    let office = Office::open(world).await;
    let (ana, ben) = (office.person("ana").await, office.person("ben").await);
    world.known.sell(&ana.id, 5);
    let id = office.organisation(&ana).await;
    let cid = office.member(&ana, &id, "cid", "").await;
    // What is in the tables between the two steps of joining.
    let (payer, until_ms) = (&ana.id, world.clock.now_ms() + 30_000);
    world
        .tamper(format!(
            "INSERT INTO seat_intents (product, payer_id, account_id, id, releases, expires_at) \
             VALUES ('adiuva', '{payer}', '{}', 'crashed', FALSE, {until_ms})",
            ben.id
        ))
        .await;
    world.known.seat(&ana.id, &ben.id);
    world.tamper("UPDATE seat_payers SET due_at = 0, generation = generation + 1").await;
    eventually("a look at the seats", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT due_at FROM seat_payers").await == [until_ms]
    })
    .await;
    assert_eq!(world.known.seated(&ana.id).len(), 3, "who is joining has time to");
    world.pass(31);
    seated(world, &ana, &[&ana, &cid]).await;
    eventually("the end of the release", Duration::from_secs(5), async || {
        world.column::<i64>("SELECT COUNT(*) FROM seat_intents").await == [0]
    })
    .await;

    // A seat that nothing here knows of is found within the hour.
    world.known.seat(&ana.id, &ben.id);
    world.pass(3601);
    seated(world, &ana, &[&ana, &cid]).await;
}

async fn a_member_without_a_seat_is_given_one(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 5);
    let id = office.organisation(&ana).await;
    let ben = office.member(&ana, &id, "ben", "").await;
    world.known.seat("somebody else", &ben.id);
    assert_eq!(world.known.seated(&ana.id), std::slice::from_ref(&ana.id));
    world.pass(3601);
    eventually("a look that changes nothing", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT due_at FROM seat_payers").await >= vec![world.clock.now_ms() + 3_000_000]
    })
    .await;
    assert_eq!(world.known.seated("somebody else"), std::slice::from_ref(&ben.id), "nobody's seat is taken away");
    world.known.seat("nobody", &ana.id);
    world.pass(3601);
    eventually("the owner's look", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT due_at FROM seat_payers").await >= vec![world.clock.now_ms() + 3_000_000]
    })
    .await;
    world.known.unseat(&ben.id);
    world.known.unseat(&ana.id);
    world.pass(3601);
    seated(world, &ana, &[&ana, &ben]).await;
}

async fn who_sits_elsewhere_has_to_leave_first(world: &World) {
    let office = Office::open(world).await;
    let (ana, bea) = (office.person("ana").await, office.person("bea").await);
    world.known.sell(&ana.id, 3);
    let (acme, other) = (office.organisation(&ana).await, office.organisation(&bea).await);
    let cid = office.member(&ana, &acme, "cid", "").await;
    let token = office.invited(&bea, &other, &cid.email, "").await;
    assert_eq!(office.accept(&cid, &token).await, Err(Reason::QuotaExceeded), "there are no seats at all");
    world.known.sell(&bea.id, 3);
    assert_eq!(office.accept(&cid, &token).await, Err(Reason::FailedPrecondition));
    seated(world, &bea, &[]).await;
    assert_eq!(office.remove(&cid, &acme, &cid).await, Ok(()));
    seated(world, &ana, &[]).await;
    assert!(office.accept(&cid, &token).await.is_ok());
    // A second organisation of one owner needs no second seat.
    let second = office.organisation(&bea).await;
    let token = office.invited(&bea, &second, &cid.email, "").await;
    assert!(office.accept(&cid, &token).await.is_ok());
    seated(world, &bea, &[&bea, &cid]).await;
    assert_eq!(office.remove(&bea, &second, &cid).await, Ok(()));
    eventually("a look at the seats", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT due_at FROM seat_payers").await.iter().all(|due| *due > world.clock.now_ms())
    })
    .await;
    assert_eq!(world.known.seated(&bea.id).len(), 2, "they are in the other one still");
}

async fn changes_at_the_same_time_leave_one_owner_and_no_second_role(world: &World) {
    let office = Office::open(world).await;
    let other = Office { node: mailing(world, &office.mail).await, mail: MailServer::start().await };
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 20);
    let id = office.organisation(&ana).await;
    for round in 0..4 {
        let bob = office.member(&ana, &id, &format!("bob{round}"), "admin").await;
        let cid = office.member(&ana, &id, &format!("cid{round}"), "member").await;
        // The owner removes an admin, who makes an admin and removes a member at the same time.
        let (removed, given, taken) = tokio::join!(
            office.remove(&ana, &id, &bob),
            other.give(&bob, &id, &cid, "admin"),
            other.remove(&bob, &id, &cid)
        );
        assert_eq!(removed, Ok(()));
        let members = office.members(&ana, &id).await.unwrap();
        let role = members.iter().find(|member| member.account_id == cid.id).map(|member| member.role.as_str());
        match (given.map(|member| member.role), taken) {
            // Made an admin, so an admin cannot remove them; or the admin was gone before both or the second.
            (Ok(_), Err(Reason::PermissionDenied | Reason::NotFound)) => assert_eq!(role, Some("admin")),
            (Err(Reason::NotFound), Ok(())) => assert_eq!(role, None),
            (Err(Reason::NotFound), Err(Reason::NotFound)) => assert_eq!(role, Some("member")),
            outcome => panic!("{outcome:?} with {role:?}"),
        }
        assert!(members.iter().all(|member| member.account_id != bob.id));
        assert_eq!(members.iter().filter(|member| member.role == "owner").count(), 1);
        assert_eq!(other.give(&bob, &id, &cid, "member").await, Err(Reason::NotFound));
    }
}

async fn lists_have_pages_that_are_their_callers_own(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 5);
    let id = office.organisation(&ana).await;
    let second = office.organisation(&ana).await;
    let ben = office.member(&ana, &id, "ben", "admin").await;
    let cid = office.member(&ana, &id, "cid", "").await;
    for number in 0..3 {
        office.invite(&ana, &id, &format!("n{number}@example.com"), "").await.unwrap();
    }
    let members = async |who: &Person, page_size, page_token: &str| -> Result<ListMembersResponse, Status> {
        let message = ListMembersRequest { organisation_id: id.clone(), page_size, page_token: page_token.to_owned() };
        ask!(office.node, who, "ListMembers", message).await
    };
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = members(&ana, 1, &page_token).await.unwrap();
        seen.extend(page.members.into_iter().map(|member| member.account_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        assert_eq!(reason(&members(&ben, 1, &page_token).await.unwrap_err()), Reason::InvalidArgument);
    }
    assert_eq!(seen, [ana.id.clone(), ben.id.clone(), cid.id.clone()]);
    assert_eq!(reason(&members(&ana, 1001, "").await.unwrap_err()), Reason::InvalidArgument);
    assert_eq!(reason(&members(&ana, 1, "forged").await.unwrap_err()), Reason::InvalidArgument);

    let list = ListInvitationsRequest { organisation_id: id.clone(), page_size: 2, page_token: String::new() };
    let first: ListInvitationsResponse = ask!(office.node, ben, "ListInvitations", list.clone()).await.unwrap();
    let list = ListInvitationsRequest { page_token: first.next_page_token, ..list };
    let last: ListInvitationsResponse = ask!(office.node, ben, "ListInvitations", list.clone()).await.unwrap();
    let emails: Vec<String> =
        first.invitations.into_iter().chain(last.invitations).map(|invitation| invitation.email).collect();
    assert_eq!(emails, ["n2@example.com", "n1@example.com", "n0@example.com"], "newest first");
    let theirs: Result<ListInvitationsResponse, _> = ask!(office.node, cid, "ListInvitations", list).await;
    assert_eq!(reason(&theirs.unwrap_err()), Reason::PermissionDenied);

    let list = ListOrganisationsRequest { page_size: 1, page_token: String::new() };
    let first: ListOrganisationsResponse = ask!(office.node, ana, "ListOrganisations", list.clone()).await.unwrap();
    let list = ListOrganisationsRequest { page_token: first.next_page_token, ..list };
    let last: ListOrganisationsResponse = ask!(office.node, ana, "ListOrganisations", list).await.unwrap();
    assert_eq!((first.organisations[0].id.clone(), last.organisations[0].id.clone()), (id, second));
    assert_eq!(last.next_page_token, "");
}

async fn what_happens_is_in_the_audit(world: &World) {
    let office = Office::open(world).await;
    let ana = office.person("ana").await;
    world.known.sell(&ana.id, 5);
    let id = office.organisation(&ana).await;
    let ben = office.member(&ana, &id, "ben", "").await;
    office.give(&ana, &id, &ben, "admin").await.unwrap();
    office.remove(&ana, &id, &ben).await.unwrap();
    let invitation = office.invite(&ana, &id, &ben.email, "").await.unwrap();
    let revoke = RevokeInvitationRequest { organisation_id: id.clone(), invitation_id: invitation.id };
    let _: RevokeInvitationResponse = ask!(office.node, ana, "RevokeInvitation", revoke).await.unwrap();
    office.delete(&ana, &id).await.unwrap();
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events WHERE kind <> 'register' ORDER BY id").await;
    assert_eq!(
        kinds,
        [
            "organisation_created",
            "invitation_created",
            "member_joined",
            "member_changed",
            "member_removed",
            "invitation_created",
            "invitation_revoked",
            "organisation_deleted"
        ]
    );
    let about: Vec<(String, Option<String>)> =
        world.column("SELECT account_id, actor_id FROM audit_events WHERE kind LIKE 'member_%' ORDER BY id").await;
    let (ana, ben) = (Some(ana.id), ben.id);
    assert_eq!(about, [(ben.clone(), None), (ben.clone(), ana.clone()), (ben, ana)]);
    let details: Vec<Option<String>> = world.column("SELECT detail FROM audit_events").await;
    assert!(details.iter().flatten().all(|detail| !detail.contains('@')), "{details:?}");
}
