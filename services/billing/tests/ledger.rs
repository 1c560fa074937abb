//! VerifyLedger names what somebody has changed.
use std::time::Duration;

use tokio::join;
use weft_core::Reason;
use weft_db::{AssertSqlSafe, DbError, sql};
use weft_proto::billing::v1::{Bucket, LedgerFault, VerifyLedgerRequest};
use weft_testing::on_both_databases;

use crate::harness::{COMPANION, CREDIT, Node, World};

on_both_databases! {
    a_change_of_any_column_of_a_movement_is_named
    a_change_of_a_wallet_is_named
    a_wallet_that_cannot_be_is_named_and_not_written_to
    movements_that_are_gone_swapped_or_forged_are_named
    holds_and_totals_that_do_not_fit_are_named
    a_ledger_is_right_while_it_is_written
    the_digest_is_of_what_moved_and_not_of_when
}

/// Ana's wallet with six movements, between others.
async fn some_movements(world: &World, node: &Node) {
    for user in ["abe", "ana", "zoe"] {
        node.grant(user, Bucket::Purchased, 20 * CREDIT, "g").await.unwrap();
        for n in 0..4 {
            node.debit(user, CREDIT + n, &n.to_string()).await.unwrap();
        }
        node.reserve(user, CREDIT, "hold").await.unwrap();
    }
    node.verified(world).await;
}

/// Runs statements as somebody with an SQL prompt, and tells what is found; then runs those that undo it.
async fn faults(world: &World, node: &Node, change: &[&str], undo: &[&str]) -> Vec<LedgerFault> {
    for text in change {
        assert!(sql(AssertSqlSafe((*text).to_owned())).run(&world.db).await.unwrap() > 0, "{text}");
    }
    let report = node.verify(world).await;
    assert_eq!(report.ok, report.faults.is_empty());
    for text in undo {
        sql(AssertSqlSafe((*text).to_owned())).run(&world.db).await.unwrap();
    }
    report.faults
}

fn names(faults: &[LedgerFault], user_id: &str, sequence: i64) -> bool {
    faults.iter().any(|fault| fault.user_id == user_id && fault.sequence == sequence && !fault.problem.is_empty())
}

async fn a_change_of_any_column_of_a_movement_is_named(world: &World) {
    let node = world.node().await;
    some_movements(world, &node).await;
    let third = "WHERE product = 'companion' AND user_id = 'ana' AND seq = 3";
    let numbers = ["amount", "balance_after", "created_at"]
        .map(|column| (column, format!("{column} + 1"), format!("{column} - 1")));
    let texts = ["id", "bucket", "kind", "account", "reference"]
        .map(|column| (column, format!("{column} || 'x'"), format!("substr({column}, 1, length({column}) - 1)")));
    for (column, to, back) in numbers.into_iter().chain(texts) {
        let change = format!("UPDATE ledger_entries SET {column} = {to} {third}");
        let undo = format!("UPDATE ledger_entries SET {column} = {back} {third}");
        let found = faults(world, &node, &[&change], &[&undo]).await;
        assert!(names(&found, "ana", 3), "{column}: {found:?}");
        assert!(!names(&found, "ana", 4) && !names(&found, "ana", 2), "{column}: {found:?}");
    }
    let hash: Vec<u8> =
        sql(AssertSqlSafe(format!("SELECT hash FROM ledger_entries {third}"))).one(&world.db).await.unwrap();
    for byte in [0, 31] {
        let mut flipped = hash.clone();
        flipped[byte] ^= 1;
        let set = |hash: Vec<u8>| sql(AssertSqlSafe(format!("UPDATE ledger_entries SET hash = $1 {third}"))).bind(hash);
        set(flipped).run(&world.db).await.unwrap();
        let found = node.verify(world).await.faults;
        assert!(names(&found, "ana", 3) && !names(&found, "ana", 4), "{found:?}");
        set(hash.clone()).run(&world.db).await.unwrap();
    }
    let moved = ["user_id = 'nobody'", "seq = 99", "product = 'adiuva'"];
    let undo = ["UPDATE ledger_entries SET product = 'companion', user_id = 'ana', seq = 3 \
                 WHERE user_id = 'nobody' OR seq = 99 OR product = 'adiuva'"];
    for to in moved {
        let found = faults(world, &node, &[&format!("UPDATE ledger_entries SET {to} {third}")], &undo).await;
        // The one after it tells that it is not where it was.
        assert!(names(&found, "ana", 4), "{to}: {found:?}");
    }
    node.verified(world).await;
    node.stop().await;
}

async fn a_change_of_a_wallet_is_named(world: &World) {
    let node = world.node().await;
    some_movements(world, &node).await;
    for column in ["daily", "bonus", "purchased", "debt", "daily_held"] {
        let set = |sign: &str| format!("UPDATE wallets SET {column} = {column} {sign} 1 WHERE user_id = 'ana'");
        let found = faults(world, &node, &[&set("+")], &[&set("-")]).await;
        assert!(names(&found, "ana", 0), "{column}: {found:?}");
        assert!(!names(&found, "abe", 0) && !names(&found, "zoe", 0), "{column}: {found:?}");
    }
    let change = "UPDATE wallets SET head = (SELECT head FROM wallets WHERE user_id = 'abe') WHERE user_id = 'ana'";
    assert!(names(&faults(world, &node, &[change], &[]).await, "ana", 0));
    node.stop().await;
}

async fn a_wallet_that_cannot_be_is_named_and_not_written_to(world: &World) {
    let node = world.node().await;
    some_movements(world, &node).await;
    let change = "UPDATE wallets SET daily_held = daily + 1 WHERE user_id = 'ana'";
    if !world.db.is_postgres() {
        assert!(matches!(sql(change).run(&world.db).await, Err(DbError::Statement(_))));
        return node.stop().await;
    }
    let found = faults(world, &node, &[change], &[]).await;
    assert!(found.iter().any(|fault| fault.user_id == "ana" && fault.problem.contains("than it has")), "{found:?}");
    // One that does not remember what was there before.
    let other = world.node().await;
    let given = join!(other.grant("ana", Bucket::Bonus, 1, "one"), other.grant("zoe", Bucket::Bonus, 1, "one"));
    assert!(matches!(given, (Err(Reason::Internal), Ok(_))), "{given:?}");
    let bonus: i64 = sql("SELECT bonus FROM wallets WHERE user_id = 'ana'").one(&world.db).await.unwrap();
    assert_eq!(bonus, 0);
    other.stop().await;
    node.stop().await;
}

async fn movements_that_are_gone_swapped_or_forged_are_named(world: &World) {
    let node = world.node().await;
    some_movements(world, &node).await;
    let swap = [
        "UPDATE ledger_entries SET seq = 100 WHERE user_id = 'ana' AND seq = 3",
        "UPDATE ledger_entries SET seq = 3 WHERE user_id = 'ana' AND seq = 4",
        "UPDATE ledger_entries SET seq = 4 WHERE user_id = 'ana' AND seq = 100",
    ];
    let found = faults(world, &node, &swap, &swap).await;
    assert!(names(&found, "ana", 3) && names(&found, "ana", 4), "{found:?}");
    node.verified(world).await;

    let found = faults(world, &node, &["DELETE FROM ledger_entries WHERE user_id = 'zoe' AND seq = 6"], &[]).await;
    assert!(names(&found, "zoe", 6), "{found:?}");
    let found = faults(world, &node, &["DELETE FROM ledger_entries WHERE user_id = 'ana' AND seq = 2"], &[]).await;
    assert!(names(&found, "ana", 3), "{found:?}");
    let found = faults(world, &node, &["DELETE FROM wallets WHERE user_id = 'abe'"], &[]).await;
    assert!(names(&found, "abe", 0), "{found:?}");
    let forged = "INSERT INTO ledger_entries SELECT product, user_id, 7, 'forged', bucket, kind, account, 5, \
         balance_after + 5, reference, created_at, hash FROM ledger_entries WHERE user_id = 'ana' AND seq = 6";
    assert!(names(&faults(world, &node, &[forged], &[]).await, "ana", 7));
    node.stop().await;
}

async fn holds_and_totals_that_do_not_fit_are_named(world: &World) {
    let node = world.node().await;
    some_movements(world, &node).await;
    let gone = ["UPDATE holds SET state = 'voided' WHERE user_id = 'ana'"];
    let found = faults(world, &node, &gone, &["UPDATE holds SET state = 'open'"]).await;
    assert!(names(&found, "ana", 0) && found.len() == 1, "{found:?}");
    node.verified(world).await;
    sql("UPDATE ledger_totals SET balance = balance + 1 WHERE account = 'spent'").run(&world.db).await.unwrap();
    let report = node.verify(world).await;
    assert!(report.sum > 0 && names(&report.faults, "", 0), "{report:?}");
    // One wallet is still right by itself.
    let message = VerifyLedgerRequest { user_id: "ana".into() };
    let one = node.ledgers().verify_ledger(world.admin(COMPANION).around(message)).await.unwrap().into_inner();
    assert_eq!((one.ok, one.wallets, one.transactions, one.sum), (true, 1, 6, 0));
    node.stop().await;
}

async fn a_ledger_is_right_while_it_is_written(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let write = async {
        for n in 0..100 {
            let user = format!("user {}", n % 7);
            nodes[n % 2].grant(&user, Bucket::Bonus, CREDIT, &n.to_string()).await.unwrap();
            let hold = nodes[(n / 2) % 2].reserve(&user, CREDIT, &n.to_string()).await.unwrap();
            nodes[(n / 3) % 2].settle(&hold, CREDIT / 2).await.unwrap();
        }
    };
    let verify = async {
        for _ in 0..10 {
            nodes[0].verified(world).await;
        }
    };
    tokio::join!(write, verify);
    let report = nodes[1].verify(world).await;
    assert_eq!((report.ok, report.wallets), (true, 7));
    assert_eq!(report.transactions, sql("SELECT COUNT(*) FROM ledger_entries").one::<i64>(&world.db).await.unwrap());
    for node in nodes {
        node.stop().await;
    }
}

async fn the_digest_is_of_what_moved_and_not_of_when(world: &World) {
    let node = world.node().await;
    let digest = async || node.verify(world).await.digest;
    let nothing = digest().await;
    node.grant("ana", Bucket::Bonus, 3, "1").await.unwrap();
    node.debit("ana", 5, "2").await.unwrap();
    let all = digest().await;
    assert_ne!(all, nothing);
    assert_eq!(all.len(), 64);
    for table in ["wallets", "ledger_entries", "ledger_totals", "idempotency_keys"] {
        sql(AssertSqlSafe(format!("DELETE FROM {table}"))).run(&world.db).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(5));
    let again = world.node().await;
    again.debit("ana", 2, "2").await.unwrap();
    again.grant("ana", Bucket::Bonus, 3, "1").await.unwrap();
    assert_ne!(digest().await, all);
    again.debit("ana", 3, "3").await.unwrap();
    assert_eq!(digest().await, all);
    again.stop().await;
    node.stop().await;
}
