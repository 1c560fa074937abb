//! The audit log: who sees it, and what happens to it behind the service's back.
use std::time::Duration;

use futures_util::future::join_all;
use weft_core::Reason;
use weft_identity::Config;
use weft_proto::identity::v1::{
    AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse, UpdateUserRequest, User, VerifyAuditRequest,
    VerifyAuditResponse,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, OTHER_PRODUCT, PASSWORD, PRODUCT, Session, World, claim, reason};

on_both_databases! {
    an_admin_reads_the_log_of_the_product_page_by_page_and_filtered
    fifty_at_once_leave_a_log_without_gaps
    whatever_is_changed_is_named
    a_log_that_was_cut_is_found_out_though_its_head_was_cut_too
    what_is_too_old_goes_and_the_rest_still_fits
    what_an_older_version_wrote_gets_its_place
    sessions_and_roles_that_change_at_once_do_not_wait_crosswise
}

/// How long housekeeping may take to come round.
const HOUSEKEEPING: Duration = Duration::from_secs(20);

async fn list(
    node: &Node,
    tokens: &Session,
    request: ListAuditEventsRequest,
) -> Result<ListAuditEventsResponse, Reason> {
    let answer = node.call(tokens, "/weft.identity.v1.AuditService/ListAuditEvents", request).await;
    answer.map_err(|status| reason(&status))
}

/// Tries to sign in with a wrong password.
async fn guess(node: &Node, email: &str) {
    let status = node.login_in(PRODUCT, email, "a wrong password").await.unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidCredentials);
}

async fn verify(node: &Node, tokens: &Session) -> VerifyAuditResponse {
    node.call(tokens, "/weft.identity.v1.AuditService/VerifyAudit", VerifyAuditRequest {}).await.unwrap()
}

fn faults(report: &VerifyAuditResponse) -> Vec<(i64, &str)> {
    assert_eq!(report.ok, report.faults.is_empty(), "{report:?}");
    report.faults.iter().map(|fault| (fault.number, fault.kind.as_str())).collect()
}

/// Waits until the service vouches for the whole log.
async fn sealed(world: &World) {
    eventually("the seal", HOUSEKEEPING, async || {
        let behind = "SELECT h.product FROM audit_heads h JOIN audit_seals s ON s.product = h.product \
             WHERE h.number > s.number LIMIT 10";
        world.column::<String>(behind).await.is_empty()
    })
    .await;
}

async fn an_admin_reads_the_log_of_the_product_page_by_page_and_filtered(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    node.register_in(OTHER_PRODUCT, "eve@example.com", PASSWORD).await.unwrap();
    guess(&node, "ana@example.com").await;
    assert_eq!(list(&node, &ana, ListAuditEventsRequest::default()).await, Err(Reason::PermissionDenied));

    let (mut seen, mut request): (Vec<AuditEvent>, _) =
        (Vec::new(), ListAuditEventsRequest { page_size: 3, ..Default::default() });
    loop {
        let page = list(&node, &admin, request.clone()).await.unwrap();
        assert!(page.events.len() <= 3);
        seen.extend(page.events);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let told: Vec<(i64, &str)> = seen.iter().map(|event| (event.number, event.kind.as_str())).collect();
    assert_eq!(told, [(4, "login_failed"), (3, "register"), (2, "role_granted"), (1, "register")]);
    assert_eq!((seen[2].actor_id.as_str(), seen[2].detail.as_str()), ("operator", "admin"));
    assert!(seen.iter().all(|event| event.hash.len() == 64 && event.created_at == world.clock.now_ms()));

    let id = claim(&ana, "sub").as_str().unwrap().to_owned();
    let of_ana = ListAuditEventsRequest { account_id: id.clone(), ..Default::default() };
    let numbers = async |request| {
        list(&node, &admin, request).await.unwrap().events.iter().map(|event| event.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(of_ana.clone()).await, [4, 3]);
    assert_eq!(numbers(ListAuditEventsRequest { kind: "register".to_owned(), ..Default::default() }).await, [3, 1]);
    assert_eq!(numbers(ListAuditEventsRequest { kind: "register".to_owned(), ..of_ana.clone() }).await, [3]);
    let elsewhere = ListAuditEventsRequest { page_token: request.page_token.clone(), ..of_ana };
    for wrong in [
        elsewhere,
        ListAuditEventsRequest { kind: "no_such".to_owned(), ..Default::default() },
        ListAuditEventsRequest { page_size: 1001, ..Default::default() },
        ListAuditEventsRequest { page_token: "x".to_owned(), ..Default::default() },
    ] {
        assert_eq!(list(&node, &admin, wrong).await, Err(Reason::InvalidArgument));
    }
    let report = verify(&node, &admin).await;
    assert_eq!((faults(&report), report.events, report.last_number), (vec![], 4, 4));
    assert_eq!(report.last_hash, seen[0].hash);
}

async fn fifty_at_once_leave_a_log_without_gaps(world: &World) {
    let (one, other) = tokio::join!(world.node(), world.node());
    let admin = world.admin(&one, "root@example.com").await;
    let all = (0..50).map(async |number| {
        let node = if number % 2 == 0 { &one } else { &other };
        let email = format!("ana{number}@example.com");
        node.register(&email).await;
        guess(node, &email).await;
    });
    join_all(all).await;
    let numbers: Vec<i64> =
        world.column("SELECT number FROM audit_events WHERE product = 'adiuva' ORDER BY number LIMIT 1000").await;
    assert_eq!(numbers, (1..=102).collect::<Vec<i64>>());
    let report = verify(&other, &admin).await;
    assert_eq!((faults(&report), report.events), (vec![], 102));
}

async fn whatever_is_changed_is_named(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    for number in 3..=10 {
        node.register(&format!("ana{number}@example.com")).await;
    }
    for table in ["events", "heads", "seals"] {
        world.tamper(format!("CREATE TABLE kept_{table} AS SELECT * FROM audit_{table}")).await;
    }
    let of = |number: i64| format!("WHERE product = '{PRODUCT}' AND number = {number}");
    let edit = |set: &str, number| vec![format!("UPDATE audit_events SET {set} {}", of(number))];
    /// Statements that tamper, and what is then found: the entry's number and the fault.
    type Case = (Vec<String>, Vec<(i64, &'static str)>);
    let mut cases: Vec<Case> = Vec::new();
    for number in [1, 5, 10] {
        for set in [
            "id = 'another'",
            "kind = 'logout'",
            "account_id = 'another'",
            "account_id = NULL",
            "session_id = 'another'",
            "request_id = 'another'",
            "at = at + 1",
            "actor_id = 'another'",
            "detail = 'another'",
            "hash = (SELECT hash FROM audit_events WHERE product = 'adiuva' AND number = 7)",
        ] {
            cases.push((edit(set, number), vec![(number, "edited")]));
        }
    }
    cases.push((edit("product = 'zerobs'", 5), vec![(5, "missing")]));
    cases.push((edit("number = 1000", 5), vec![(1000, "moved")]));
    cases.push((edit("number = -5", 5), vec![(-5, "moved")]));
    let delete =
        |condition: &str| vec![format!("DELETE FROM audit_events WHERE product = '{PRODUCT}' AND number {condition}")];
    cases.push((delete("= 1"), vec![(1, "missing")]));
    cases.push((delete("IN (4, 5)"), vec![(4, "missing"), (5, "missing")]));
    cases.push((delete("= 10"), vec![(10, "missing")]));
    cases.push((delete("> 0"), (1..=10).map(|number| (number, "missing")).collect()));
    for (one, other) in [(3, 7), (4, 5), (1, 2), (9, 10)] {
        let to = |from: i64, to: i64| format!("UPDATE audit_events SET number = {to} {}", of(from));
        let swap = vec![to(one, -1), to(other, one), to(-1, other)];
        cases.push((swap, vec![(one, "moved"), (other, "moved")]));
    }
    // The same without their numbers and hashes.
    let free = format!("UPDATE audit_events SET id = 'x' || id WHERE product = '{PRODUCT}' AND number IN (4, 8)");
    let swap = format!(
        "UPDATE audit_events SET id = o.id, account_id = o.account_id, request_id = o.request_id \
         FROM kept_events o WHERE o.product = '{PRODUCT}' AND audit_events.product = '{PRODUCT}' \
         AND o.number IN (4, 8) AND audit_events.number = 12 - o.number"
    );
    cases.push((vec![free, swap], vec![(4, "moved"), (8, "moved")]));
    for (statements, expected) in cases {
        for statement in &statements {
            world.tamper(statement).await;
        }
        let report = verify(&node, &admin).await;
        assert_eq!(faults(&report), expected, "{statements:?}");
        for table in ["events", "heads", "seals"] {
            world.tamper(format!("DELETE FROM audit_{table}")).await;
            world.tamper(format!("INSERT INTO audit_{table} SELECT * FROM kept_{table}")).await;
        }
        let report = verify(&node, &admin).await;
        assert_eq!(faults(&report), [], "after {statements:?}");
    }
}

async fn a_log_that_was_cut_is_found_out_though_its_head_was_cut_too(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    node.register("ana@example.com").await;
    sealed(world).await;
    world.tamper("DELETE FROM audit_events WHERE product = 'adiuva' AND number = 3").await;
    world
        .tamper(
            "UPDATE audit_heads SET number = 2, hash = (SELECT hash FROM audit_events WHERE product = 'adiuva' \
             AND number = 2) WHERE product = 'adiuva'",
        )
        .await;
    assert_eq!(faults(&verify(&node, &admin).await), [(0, "edited"), (3, "missing")]);
    world
        .tamper(
            "UPDATE audit_seals SET number = 2, hash = (SELECT hash FROM audit_heads WHERE product = 'adiuva') \
         WHERE product = 'adiuva'",
        )
        .await;
    assert_eq!(faults(&verify(&node, &admin).await), [(0, "edited")], "who cannot sign cannot cut the seal");
    world.tamper("DELETE FROM audit_seals WHERE product = 'adiuva'").await;
    assert_eq!(faults(&verify(&node, &admin).await), [(0, "missing")]);
    world.tamper("DELETE FROM audit_events WHERE product = 'adiuva'").await;
    assert_eq!(faults(&verify(&node, &admin).await), [(0, "missing"), (1, "missing"), (2, "missing")]);
    let started = world.node().await;
    assert_eq!(
        faults(&verify(&started, &admin).await),
        [(0, "missing"), (1, "missing"), (2, "missing")],
        "no new seal"
    );
}

async fn what_is_too_old_goes_and_the_rest_still_fits(world: &World) {
    let config = Config { weft_identity_audit_days: 2, ..world.config.clone() };
    let node = world.node_with(config).await;
    world.admin(&node, "root@example.com").await;
    world.pass(24 * 60 * 60);
    node.register("ana@example.com").await;
    world.pass(24 * 60 * 60);
    eventually("the old events to go", HOUSEKEEPING, async || {
        world.column::<i64>("SELECT number FROM audit_events ORDER BY number LIMIT 10").await == [3]
    })
    .await;
    let admin = node.login("root@example.com").await.unwrap();
    let report = verify(&node, &admin).await;
    assert_eq!((faults(&report), report.events, report.last_number), (vec![], 1, 3));
    node.register("eve@example.com").await;
    assert_eq!(faults(&verify(&node, &admin).await), []);

    world.tamper("UPDATE audit_seals SET pruned_number = 3 WHERE product = 'adiuva'").await;
    assert!(!verify(&node, &admin).await.ok, "what was pruned is signed");
}

async fn what_an_older_version_wrote_gets_its_place(world: &World) {
    let at = world.clock.now_ms();
    for (id, product, at) in [("c", PRODUCT, at - 1), ("b", PRODUCT, at - 2), ("a", PRODUCT, at - 2), ("d", "old", at)]
    {
        world
            .tamper(format!(
                "INSERT INTO audit_events (id, product, kind, request_id, at) \
                 VALUES ('{id}', '{product}', 'login_failed', 'r', {at})"
            ))
            .await;
    }
    let (node, _other) = tokio::join!(world.node(), world.node());
    eventually("the places", HOUSEKEEPING, async || {
        world.column::<String>("SELECT id FROM audit_events WHERE number IS NULL LIMIT 10").await.is_empty()
    })
    .await;
    let admin = world.admin(&node, "root@example.com").await;
    let report = verify(&node, &admin).await;
    assert_eq!((faults(&report), report.events), (vec![], 5));
    let first: Vec<String> =
        world.column("SELECT id FROM audit_events WHERE product = 'adiuva' ORDER BY number LIMIT 3").await;
    assert_eq!(first, ["a", "b", "c"]);
    sealed(world).await;
}

async fn sessions_and_roles_that_change_at_once_do_not_wait_crosswise(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    let user_id = claim(&ana, "sub").as_str().unwrap().to_owned();
    for round in 0..6 {
        let sessions = join_all((0..6).map(|_| node.login("ana@example.com"))).await;
        let roles = ["support", "reviewer"].map(|role| {
            let (user_id, roles) = (user_id.clone(), vec![role.to_owned()]);
            let message = UpdateUserRequest { user_id, roles, ..Default::default() };
            node.call::<_, User>(&admin, "/weft.identity.v1.AdminService/UpdateUser", message)
        });
        let ends = sessions.into_iter().map(Result::unwrap).map(async |session| node.logout(&session).await);
        let (changed, ended) = tokio::join!(join_all(roles), join_all(ends));
        assert!(changed.iter().all(Result::is_ok), "round {round}: {changed:?}");
        for outcome in ended {
            // Its token may have been withdrawn by then, and that is all.
            assert!(matches!(outcome, Ok(_) | Err(Reason::Unauthenticated)), "round {round}: {outcome:?}");
        }
    }
    assert_eq!(faults(&verify(&node, &admin).await), []);
}
