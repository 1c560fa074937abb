//! Values in, the same values out.
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weft_db::{Db, DbError, record, sql};

use super::{Place, on_both};

record! {
    #[derive(Clone, Debug, PartialEq)]
    struct Values { id: i64, text: Option<String>, int: Option<i64>, float: Option<f64>, bool: Option<bool>, bytes: Option<Vec<u8>> }
}

async fn table(db: &Db) {
    sql("CREATE SCHEMA testing").run(db).await.ok();
    sql("CREATE TABLE vals (id BIGINT PRIMARY KEY, text TEXT, int BIGINT, float DOUBLE PRECISION, bool BOOLEAN, bytes BYTEA)")
        .run(db)
        .await
        .unwrap();
}

async fn store(db: &Db, values: &Values) -> Result<Values, DbError> {
    sql("INSERT INTO vals (id, text, int, float, bool, bytes) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET text = $2, int = $3, float = $4, bool = $5, bytes = $6 \
         RETURNING id, text, int, float, bool, bytes")
    .bind(values.id)
    .bind(values.text.clone())
    .bind(values.int)
    .bind(values.float)
    .bind(values.bool)
    .bind(values.bytes.clone())
    .one(db)
    .await
}

fn full(id: i64) -> Values {
    Values {
        id,
        text: Some("čaj ☕".into()),
        int: Some(i64::MIN),
        float: Some(0.1),
        bool: Some(true),
        bytes: Some(vec![0, 255, 39]),
    }
}

fn empty(id: i64) -> Values {
    Values { id, text: None, int: None, float: None, bool: None, bytes: None }
}

on_both! {
    /// On one connection, so that on PostgreSQL it is one prepared statement.
    async fn a_value_and_a_null_of_its_type_take_turns(place: Place) {
        let mut options = place.options.clone();
        options.max_connections = 1;
        let db = Db::connect(&options).await.unwrap();
        table(&db).await;
        for values in [full(1), empty(2), full(3), empty(1), full(2)] {
            assert_eq!(store(&db, &values).await.unwrap(), values);
            let read = sql("SELECT * FROM vals WHERE id = $1").bind(values.id);
            assert_eq!(read.one::<Values>(&db).await.unwrap(), values);
        }
    }

    async fn any_row_comes_back_as_it_was_stored(place: Place) {
        let db = place.open().await;
        table(&db).await;
        let values = (
            proptest::option::of("[^\0]{0,40}"),
            any::<Option<i64>>(),
            proptest::option::of(prop::num::f64::NORMAL | prop::num::f64::ZERO),
            any::<Option<bool>>(),
            any::<Option<Vec<u8>>>(),
        );
        let strategy = (any::<i64>(), values).prop_map(|(id, (text, int, float, bool, bytes))| Values { id, text, int, float, bool, bytes });
        let handle = tokio::runtime::Handle::current();
        let run = move || {
            TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() }).run(&strategy, |values| {
                prop_assert_eq!(handle.block_on(store(&db, &values)).unwrap(), values);
                Ok(())
            })
        };
        tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    }

    async fn columns_are_read_one_by_one_in_tuples_and_by_name(place: Place) {
        let db = place.open().await;
        table(&db).await;
        store(&db, &full(1)).await.unwrap();
        store(&db, &empty(2)).await.unwrap();
        assert!(sql("SELECT bool FROM vals WHERE id = 1").one::<bool>(&db).await.unwrap());
        assert_eq!(sql("SELECT COUNT(*) FROM vals").one::<i64>(&db).await.unwrap(), 2);
        let sums = sql("SELECT CAST(COALESCE(SUM(id), 0) AS BIGINT), MAX(text) FROM vals WHERE id > $1").bind(9);
        assert_eq!(sums.one::<(i64, Option<String>)>(&db).await.unwrap(), (0, None));
        assert_eq!(sql("SELECT id FROM vals ORDER BY id").all::<i64>(&db).await.unwrap(), [1, 2]);
        assert_eq!(sql("SELECT id FROM vals WHERE id = 3").opt::<i64>(&db).await.unwrap(), None);
        assert!(matches!(sql("SELECT id FROM vals WHERE id = 3").one::<i64>(&db).await, Err(DbError::NoRow)));
    }

    async fn a_null_or_another_type_than_expected_is_an_error(place: Place) {
        let db = place.open().await;
        table(&db).await;
        store(&db, &empty(1)).await.unwrap();
        assert!(matches!(sql("SELECT text FROM vals").one::<String>(&db).await, Err(DbError::Column(_))));
        assert!(matches!(sql("SELECT int FROM vals").one::<i64>(&db).await, Err(DbError::Column(_))));
        assert!(matches!(sql("SELECT float FROM vals").one::<f64>(&db).await, Err(DbError::Column(_))));
        assert!(matches!(sql("SELECT bool FROM vals").one::<bool>(&db).await, Err(DbError::Column(_))));
        assert!(matches!(sql("SELECT bytes FROM vals").one::<Vec<u8>>(&db).await, Err(DbError::Column(_))));
        assert!(matches!(sql("SELECT id FROM vals").one::<String>(&db).await, Err(DbError::Column(_))));
        assert!(matches!(sql("SELECT id FROM vals").one::<Values>(&db).await, Err(DbError::Column(_))));
    }

    async fn arrays_are_rows_on_postgres_and_refused_on_sqlite(place: Place) {
        let db = place.open().await;
        table(&db).await;
        let stored = sql("INSERT INTO vals (id, text, bool, bytes) SELECT * FROM unnest($1, $2, $3, $4) RETURNING id, text, int, float, bool, bytes")
            .on_postgres(
                "INSERT INTO vals (id, text, bool, bytes) SELECT * FROM unnest($1::BIGINT[], $2::TEXT[], $3::BOOLEAN[], $4::BYTEA[]) \
                 RETURNING id, text, int, float, bool, bytes",
            )
            .bind(vec![1_i64, 2])
            .bind(vec!["čaj".to_owned(), String::new()])
            .bind(vec![true, false])
            .bind(vec![vec![0, 255], Vec::new()])
            .all::<Values>(&db)
            .await;
        let [full, blank] = [("čaj", true, vec![0, 255]), ("", false, Vec::new())].map(|(text, bool, bytes)| Values {
            text: Some(text.into()),
            bool: Some(bool),
            bytes: Some(bytes),
            ..empty(0)
        });
        match stored {
            Ok(rows) if db.is_postgres() => assert_eq!(rows, [Values { id: 1, ..full }, Values { id: 2, ..blank }]),
            Err(DbError::Statement(_)) if !db.is_postgres() => {}
            other => panic!("{other:?}"),
        }
        let nul = sql("SELECT $1").bind(vec!["a\0b".to_owned()]).opt::<i64>(&db).await.unwrap_err();
        assert!(nul.is_invalid_text());
    }

    async fn a_nul_character_is_refused_on_both(place: Place) {
        let db = place.open().await;
        table(&db).await;
        let error = store(&db, &Values { text: Some("a\0b".into()), ..empty(1) }).await.unwrap_err();
        assert!(error.is_invalid_text());
        assert_eq!(sql("SELECT COUNT(*) FROM vals").one::<i64>(&db).await.unwrap(), 0);
    }

    async fn each_database_runs_the_text_that_is_for_it(place: Place) {
        let db = place.open().await;
        let text = sql("SELECT 'sqlite'").on_postgres("SELECT 'postgres'").one::<String>(&db).await.unwrap();
        assert!(place.options.url.starts_with(&text));
    }

    /// The DETAIL of PostgreSQL quotes the whole row.
    async fn an_error_does_not_repeat_what_a_user_wrote(place: Place) {
        let db = place.open().await;
        table(&db).await;
        sql("CREATE UNIQUE INDEX vals_text ON vals (text)").run(&db).await.unwrap();
        store(&db, &Values { text: Some("dear diary".into()), ..empty(1) }).await.unwrap();
        let again = Values { text: Some("dear diary".into()), ..empty(2) };
        let error = store(&db, &again).await.unwrap_err();
        assert!(error.is_unique_violation(), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("diary"));
    }
}

#[tokio::test]
async fn a_select_on_sqlite_cannot_write() {
    let place = Place::sqlite();
    let db = place.open().await;
    table(&db).await;
    // Goes to a reading connection by its first word.
    let rows: Result<Vec<i64>, _> = sql("SELECT 1; DELETE FROM vals").all(&db).await;
    assert!(matches!(rows, Err(DbError::Statement(_))));
}
