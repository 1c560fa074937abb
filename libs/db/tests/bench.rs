use super::*; use weft_db::{sql, Tx}; use std::time::*;
async fn bench(place: Place) {
    let db = place.open().await;
    db.migrate(&[weft_db::Migration{version:1,name:"w",sql:"CREATE TABLE w (id BIGINT PRIMARY KEY, c BIGINT NOT NULL)"}]).await.unwrap();
    for i in 0..1000 { sql("INSERT INTO w (id, c) VALUES ($1, 0)").bind(i).run(&db).await.unwrap(); }
    for _ in 0..3 {
    let start = Instant::now(); let mut set = tokio::task::JoinSet::new();
    for k in 0..8i64 { let db = db.clone(); set.spawn(async move { let mut n = 0i64; while start.elapsed() < Duration::from_secs(3) { let id = (n * 8 + k) % 1000; n += 1;
        db.write("b", async |tx: Tx| -> Result<(), DbError> { let c: i64 = sql("SELECT c FROM w WHERE id = $1").bind(id).one(&tx).await?; sql("UPDATE w SET c = $1 WHERE id = $2").bind(c+1).bind(id).run(&tx).await?; Ok(()) }).await.unwrap(); } n }); }
    let n: i64 = set.join_all().await.into_iter().sum();
    println!("{} tx/s", n / 3);
    }
}
#[tokio::test(flavor="multi_thread", worker_threads=2)] async fn pg() { bench(Place::postgres().await).await }
#[tokio::test(flavor="multi_thread", worker_threads=2)] async fn lite() { bench(Place::sqlite()).await }
