//! Accounts from elsewhere, with the password hashes that they bring along.
use weft_core::Reason;
use weft_identity::{BadLine, ImportOrder, Imported, import};
use weft_testing::on_both_databases;

use crate::harness::{PASSWORD, PRODUCT, World};

on_both_databases! {
    who_was_brought_in_signs_in_with_the_old_password_and_has_a_new_hash
    bad_and_hostile_lines_are_left_out_and_said
    nobody_who_is_there_is_changed
    what_a_wrong_password_costs_is_bounded_for_the_whole_product
}

/// Of the password `a`, at cost 6.
const BCRYPT: &str = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";

fn line(email: &str, hash: &str) -> String {
    format!("{{\"email\": \"{email}\", \"password_hash\": \"{hash}\"}}\n")
}

async fn bring(world: &World, dry_run: bool, text: &str) -> (Imported, Vec<BadLine>) {
    let mut bad = Vec::new();
    let order = ImportOrder { product: PRODUCT, dry_run };
    let mut report = |line| bad.push(line);
    let done = import(world.secret().0, &world.clock, order, &mut text.as_bytes(), &mut report).await.unwrap();
    (done, bad)
}

async fn who_was_brought_in_signs_in_with_the_old_password_and_has_a_new_hash(world: &World) {
    let node = world.node().await;
    let (done, bad) = bring(world, true, &line("Ana@example.com", BCRYPT)).await;
    assert_eq!((done.added, bad.len()), (1, 0));
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM accounts").await, [0], "nothing was written");
    bring(world, false, &line("Ana@example.com", BCRYPT)).await;
    let login = async |password: &str| node.login_in(PRODUCT, "ana@example.com", password).await.is_ok();
    assert!(!login("b").await && !login("").await && !login(&"a".repeat(80)).await);
    assert_eq!(world.column::<String>("SELECT password_hash FROM accounts").await, [BCRYPT]);
    assert!(login("a").await);
    let hash = world.column::<String>("SELECT password_hash FROM accounts").await.remove(0);
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_eq!(world.column::<Option<String>>("SELECT hash_shape FROM accounts").await, [None]);
    assert!(login("a").await && !login("b").await);
}

async fn bad_and_hostile_lines_are_left_out_and_said(world: &World) {
    let salt = "AAAAAAAAAAAAAAAAAAAAAA";
    let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let hostile = [
        "{".to_owned(),
        "null".to_owned(),
        line("no address", BCRYPT),
        line("a@example.com", ""),
        line("a@example.com", "plain text"),
        line("a@example.com", &BCRYPT.replace("$06$", "$31$")),
        line("a@example.com", &format!("$argon2id$v=19$m=4294967295,t=1,p=1${salt}${hash}")),
        line("a@example.com", &format!("$argon2id$v=19$m=65536,t=4294967295,p=1${salt}${hash}")),
        line("a@example.com", &format!("$scrypt$ln=63,r=8,p=1${salt}${hash}")),
        line("a@example.com", &format!("$scrypt$ln=1,r=4294967295,p=4294967295${salt}${hash}")),
        line("a@example.com", &format!("$pbkdf2-sha256$i=4294967295${salt}${hash}")),
        line("a@example.com", &format!("$pbkdf2-sha256$i=0${salt}${hash}")),
        format!("{{\"email\": \"a@example.com\", \"password_hash\": \"{BCRYPT}\", \"roles\": \"admin\"}}"),
        format!("{{\"email\": \"a@example.com\", \"password_hash\": \"{BCRYPT}\", \"created_at\": 9e15}}"),
        format!("{{\"email\": \"a@example.com\", \"password_hash\": \"{BCRYPT}\", \"created_at\": 1795000000000}}"),
        line(&format!("{}@example.com", "a".repeat(20_000)), BCRYPT),
        "\u{0}\u{1}".to_owned(),
    ];
    let text: String = hostile.iter().map(|line| format!("{}\n", line.trim_end())).collect();
    let (done, bad) = bring(world, false, &format!("{text}{}", line("ana@example.com", BCRYPT))).await;
    assert_eq!((done.added, done.bad), (1, hostile.len() as u64), "{bad:?}");
    let numbers: Vec<u64> = bad.iter().map(|line| line.number).collect();
    assert_eq!(numbers, (1..=hostile.len() as u64).collect::<Vec<_>>());
    assert!(!format!("{bad:?}").contains("$2a$"), "nothing of a line is told");
}

async fn nobody_who_is_there_is_changed(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    let twice = [line("ANA@example.com", BCRYPT), line("ben@example.com", BCRYPT), line("Ben@example.com", BCRYPT)];
    let expected = Imported { added: 1, existing: 2, bad: 0 };
    assert_eq!(bring(world, true, &twice.concat()).await.0, expected);
    assert_eq!(bring(world, false, &twice.concat()).await.0, expected);
    assert_eq!(bring(world, false, &twice.concat()).await.0, Imported { added: 0, existing: 3, bad: 0 });
    assert!(node.login("ana@example.com").await.is_ok() && node.me(&ana).await.is_ok());
    let stolen = node.login_in(PRODUCT, "ana@example.com", "a").await;
    assert_eq!(crate::harness::reason(&stolen.unwrap_err()), Reason::InvalidCredentials);
    assert_ne!(PASSWORD, "a");
}

async fn what_a_wrong_password_costs_is_bounded_for_the_whole_product(world: &World) {
    let with = |kind: &str| format!("{kind}$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let dear = |rounds: u32| with(&format!("$pbkdf2-sha256$i={rounds}"));
    let text = [
        line("a@example.com", &dear(2_000_000)),
        line("b@example.com", &dear(2_000_000)),
        line("c@example.com", &dear(1_900_000)),
        line("d@example.com", &dear(600_000)),
        line("e@example.com", BCRYPT),
    ];
    let (done, bad) = bring(world, false, &text.concat()).await;
    assert_eq!((done.added, bad.len()), (4, 1), "{bad:?}");
    assert_eq!(bad[0].number, 4, "after two that take almost two seconds");
    let (_, bad) = bring(world, false, &line("f@example.com", &dear(600_000))).await;
    assert_eq!(bad.len(), 1, "nor by another file");
}
