//! Migrations go forward, once, whoever starts them.
use futures_util::future::join_all;
use weft_db::{Db, DbError, Migration, sql};

use super::{Place, on_both};

const FIRST: Migration = Migration {
    version: 1,
    name: "notes",
    sql: "CREATE TABLE notes (id BIGINT PRIMARY KEY, text TEXT NOT NULL); -- a comment; with a semicolon\n\
          CREATE INDEX notes_text ON notes (text);\n\
          INSERT INTO notes (id, text) VALUES (1, 'it''s; here');",
};
const SECOND: Migration = Migration {
    version: 2,
    name: "pinned",
    sql: "ALTER TABLE notes ADD COLUMN pinned BOOLEAN NOT NULL DEFAULT FALSE;",
};

async fn notes(db: &Db) -> i64 {
    sql("SELECT COUNT(*) FROM notes").one(db).await.unwrap()
}

fn sentence(result: Result<(), DbError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, DbError::Schema(_)), "{error:?}");
    error.to_string()
}

on_both! {
    async fn migrations_are_applied_once_and_continued(place: Place) {
        let db = place.open().await;
        db.migrate(&[FIRST]).await.unwrap();
        db.migrate(&[FIRST]).await.unwrap();
        assert_eq!(notes(&db).await, 1);
        db.migrate(&[FIRST, SECOND]).await.unwrap();
        db.check_migrated(&[FIRST, SECOND]).await.unwrap();
        assert!(!sql("SELECT pinned FROM notes").one::<bool>(&db).await.unwrap());
    }

    async fn a_line_may_be_for_postgresql_alone(place: Place) {
        let db = place.open().await;
        let text = "SELECT 1; -- both\n--postgresql INSERT INTO notes (id, text)\n--postgresql VALUES (2, 'two');\n";
        db.migrate(&[FIRST, Migration { version: 2, name: "second note", sql: text }]).await.unwrap();
        assert_eq!(notes(&db).await, if db.is_postgres() { 2 } else { 1 });
    }

    async fn a_migration_may_be_for_postgresql_alone(place: Place) {
        let db = place.open().await;
        let text = "-- what for\n--postgresql DELETE FROM notes;\n";
        db.migrate(&[FIRST, Migration { version: 2, name: "no notes", sql: text }]).await.unwrap();
        assert_eq!(notes(&db).await, if db.is_postgres() { 0 } else { 1 });
    }

    async fn a_mark_that_is_nearly_right_is_refused(place: Place) {
        let db = place.open().await;
        if db.is_postgres() {
            for sql in ["  --postgresql DELETE FROM notes;", "--postgresql\tDELETE FROM notes;"] {
                let near = Migration { version: 2, name: "no notes", sql };
                assert!(sentence(db.migrate(&[FIRST, near]).await).starts_with("migration 2: a line is marked"));
            }
        }
    }

    async fn several_processes_may_migrate_at_once(place: Place) {
        let starts = (0..4).map(|_| async {
            let db = place.open().await;
            db.migrate(&[FIRST, SECOND]).await.unwrap();
            db.check_migrated(&[FIRST, SECOND]).await.unwrap();
            notes(&db).await
        });
        assert_eq!(join_all(starts).await, [1, 1, 1, 1]);
    }

    async fn a_pending_migration_is_named_with_what_to_do(place: Place) {
        let db = place.open().await;
        let expected = "schema testing lacks migration 1 (notes), run weft migrate first";
        assert_eq!(sentence(db.check_migrated(&[FIRST, SECOND]).await), expected);
        db.migrate(&[FIRST]).await.unwrap();
        let expected = "schema testing lacks migration 2 (pinned), run weft migrate first";
        assert_eq!(sentence(db.check_migrated(&[FIRST, SECOND]).await), expected);
    }

    async fn an_older_program_leaves_a_newer_schema_alone(place: Place) {
        let db = place.open().await;
        db.migrate(&[FIRST, SECOND]).await.unwrap();
        let expected = "schema testing: it has migration 2 (pinned), this program is older, deploy the newer one";
        assert_eq!(sentence(db.migrate(&[FIRST]).await), expected);
        assert_eq!(sentence(db.check_migrated(&[FIRST]).await), expected);
    }

    async fn a_changed_migration_is_refused(place: Place) {
        let db = place.open().await;
        db.migrate(&[FIRST]).await.unwrap();
        let changed = Migration { sql: "CREATE TABLE notes (id TEXT PRIMARY KEY);", ..FIRST };
        let expected = "schema testing: migration 1 (notes) was changed after it was applied, put its text back and add a new one";
        assert_eq!(sentence(db.migrate(&[changed]).await), expected);
        assert_eq!(sentence(db.check_migrated(&[changed]).await), expected);
    }

    async fn a_checkout_may_change_line_ends(place: Place) {
        let db = place.open().await;
        db.migrate(&[Migration { sql: "CREATE TABLE a (b TEXT);\n-- end\n", ..FIRST }]).await.unwrap();
        db.check_migrated(&[Migration { sql: "CREATE TABLE a (b TEXT);\r\n-- end\r\n", ..FIRST }]).await.unwrap();
    }

    async fn a_migration_cannot_be_put_before_an_applied_one(place: Place) {
        let db = place.open().await;
        db.migrate(&[SECOND_ALONE]).await.unwrap();
        let expected = "schema testing: migration 2 is applied where this program has 1, add new migrations at the end";
        assert_eq!(sentence(db.migrate(&[FIRST, SECOND_ALONE]).await), expected);
        let expected = "schema testing: the migrations of this program are not in ascending order";
        assert_eq!(sentence(db.migrate(&[SECOND_ALONE, FIRST]).await), expected);
    }

    async fn a_failing_migration_leaves_nothing_behind(place: Place) {
        let db = place.open().await;
        let broken = Migration { sql: "CREATE TABLE half (id BIGINT); INSERT INTO nowhere VALUES (1);", ..SECOND };
        assert!(matches!(db.migrate(&[FIRST, broken]).await, Err(DbError::Statement(_))));
        db.migrate(&[FIRST, SECOND]).await.unwrap();
        assert!(sql("SELECT COUNT(*) FROM half").one::<i64>(&db).await.is_err());
    }
}

const SECOND_ALONE: Migration = Migration { version: 2, name: "other", sql: "CREATE TABLE other (id BIGINT);" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_share_a_postgresql_database_without_seeing_each_other() {
    let place = Place::postgres().await;
    let mut other = place.options.clone();
    other.schema = "elsewhere";
    let (here, there) = (place.open().await, Db::connect(&other).await.unwrap());
    here.migrate(&[FIRST]).await.unwrap();
    assert!(there.check_migrated(&[FIRST]).await.is_err());
    there.migrate(&[FIRST]).await.unwrap();
    sql("DELETE FROM notes").run(&there).await.unwrap();
    assert_eq!((notes(&here).await, notes(&there).await), (1, 0));
}
