//! Calls that have ended, written together.
use std::collections::HashMap;

use prost::Message;
use weft_db::{DbError, On, Tx, record, sql};
use weft_proto::billing::v1::UsageRecord;

use crate::domain::day::day_of;
use crate::domain::idempotency::Key;
use crate::domain::usage::TOKENS_PER_DAY;
use crate::error::Error;
use crate::store::group::Values;
use crate::store::idempotency::idempotency_store;
use crate::store::usage::{CallRow, counter_add, reservation_end};

/// A call that has ended.
#[derive(Clone)]
pub struct Ended {
    /// So that it counts once; names the product too.
    pub key: Key,
    /// What is logged.
    pub call: CallRow,
    /// Under which it was running; empty if nobody counted.
    pub usage_id: String,
    /// What is answered to the key from now on, but for the tokens of the day.
    pub answer: UsageRecord,
}

impl Ended {
    fn day(&self) -> i64 {
        day_of(self.call.created_at)
    }
}

record! {
    struct CountedRow { product: String, user_id: String, day: i64, used: i64 }
}

/// PostgreSQL: all of them in one statement; answers the tokens of the day after each. Nothing has happened if a key was
/// used before or a day's tokens exceed 64 bits: those are errors of the database.
///
/// Of each account the counter is locked first, in their order: whoever writes the same accounts waits there.
pub async fn calls_commit(on: &impl On, calls: &[Ended]) -> Result<Vec<i64>, DbError> {
    let mut values = Values::default();
    let Some(rows) = values.rows(calls) else { return Ok(Vec::new()) };
    let source = rows
        .text("product", |it| &it.key.product)
        .text("user_id", |it| &it.call.user_id)
        .text("id", |it| &it.call.id)
        .text("session_id", |it| &it.call.session_id)
        .text("agent_role", |it| &it.call.agent_role)
        .text("model", |it| &it.call.model_used)
        .int("input_tokens", |it| it.call.input_tokens)
        .int("output_tokens", |it| it.call.output_tokens)
        .int("total_tokens", |it| it.call.total_tokens)
        .int("cost_microdollars", |it| it.call.cost_microdollars)
        .flag("priced", |it| it.call.priced)
        .int("charged", |it| it.call.charged)
        .flag("estimated", |it| it.call.estimated)
        .int("latency_ms", |it| it.call.latency_ms)
        .flag("failed", |it| it.call.failed)
        .int("created_at", |it| it.call.created_at)
        .int("day", Ended::day)
        .text("usage_id", |it| &it.usage_id)
        .text("method", |it| it.key.method)
        .text("key", |it| &it.key.key)
        .bytes("request", |it| it.key.request.to_vec())
        .bytes("answer", |it| it.answer.encode_to_vec())
        .source();
    let counter = values.add(TOKENS_PER_DAY);
    let text = format!(
        "WITH c AS MATERIALIZED (SELECT * FROM {source}), {LOGGED} \
         INSERT INTO daily_counters AS t (product, user_id, day, name, used) \
         SELECT product, user_id, day, {counter}, SUM(total_tokens) FROM c GROUP BY product, user_id, day \
         ORDER BY product, user_id, day \
         ON CONFLICT (product, user_id, day, name) DO UPDATE SET used = t.used + excluded.used \
         RETURNING product, user_id, day, used"
    );
    let rows: Vec<CountedRow> = values.into_sql(text).all(on).await?;
    let of = |row: CountedRow| ((row.product, row.user_id, row.day), row.used);
    let mut used: HashMap<(String, String, i64), i64> = rows.into_iter().map(of).collect();
    let mut after: Vec<i64> = Vec::with_capacity(calls.len());
    // What an account has used at the end is after its last call.
    for it in calls.iter().rev() {
        let day = used.entry((it.key.product.clone(), it.call.user_id.clone(), it.day())).or_default();
        after.push(*day);
        *day -= it.call.total_tokens;
    }
    after.reverse();
    Ok(after)
}

const LOGGED: &str = "\
new_keys AS ( \
    INSERT INTO idempotency_keys (product, user_id, method, key, request, answer, created_at) \
    SELECT product, user_id, method, key, request, answer, created_at FROM c), \
new_calls AS ( \
    INSERT INTO usage_logs (product, id, user_id, session_id, agent_role, model_used, input_tokens, output_tokens, \
    total_tokens, cost_microdollars, priced, charged, estimated, latency_ms, failed, created_at) \
    SELECT product, id, user_id, session_id, agent_role, model, input_tokens, output_tokens, total_tokens, \
    cost_microdollars, priced, charged, estimated, latency_ms, failed, created_at FROM c), \
new_days AS ( \
    INSERT INTO usage_daily AS d (product, user_id, day, model, agent_role, calls, input_tokens, output_tokens, \
    cost_microdollars, failed, latency_ms) \
    SELECT product, user_id, day, model, agent_role, COUNT(*), SUM(input_tokens), SUM(output_tokens), \
    SUM(cost_microdollars), COUNT(*) FILTER (WHERE failed), SUM(latency_ms) \
    FROM c GROUP BY product, user_id, day, model, agent_role \
    ON CONFLICT (product, user_id, day, model, agent_role) DO UPDATE SET calls = d.calls + excluded.calls, \
    input_tokens = d.input_tokens + excluded.input_tokens, \
    output_tokens = d.output_tokens + excluded.output_tokens, \
    cost_microdollars = d.cost_microdollars + excluded.cost_microdollars, \
    failed = d.failed + excluded.failed, latency_ms = d.latency_ms + excluded.latency_ms), \
ended AS ( \
    DELETE FROM usage_reservations r USING c \
    WHERE c.usage_id <> '' AND r.product = c.product AND r.user_id = c.user_id \
    AND (r.id = c.usage_id OR r.expires_at <= c.created_at))";

/// The same one by one, on either database.
///
/// # Errors
/// [`Error::Busy`] if a key was used before, [`Error::Invalid`] if a day's tokens exceed 64 bits: then nothing of the
/// transaction may be kept.
pub async fn calls_write(tx: &Tx, calls: &[Ended]) -> Result<Vec<i64>, Error> {
    let mut after = Vec::with_capacity(calls.len());
    for Ended { key, call, usage_id, answer } in calls {
        let (day, now) = (day_of(call.created_at), call.created_at);
        let room = i64::MAX - call.total_tokens;
        let counter = (day, TOKENS_PER_DAY);
        let used = counter_add(tx, &key.product, &call.user_id, counter, call.total_tokens, room).await?;
        after.push(used.ok_or_else(|| Error::Invalid("the tokens of the day exceed 64 bits".into()))?);
        call_add(tx, &key.product, day, call).await?;
        if !usage_id.is_empty() {
            reservation_end(tx, &key.product, &call.user_id, usage_id, now).await?;
        }
        if !idempotency_store(tx, key, &answer.encode_to_vec(), now).await? {
            return Err(Error::Busy);
        }
    }
    Ok(after)
}

/// Logs a call and adds it to its day.
async fn call_add(tx: &Tx, product: &str, day: i64, call: &CallRow) -> Result<(), DbError> {
    sql("INSERT INTO usage_logs (product, id, user_id, session_id, agent_role, model_used, input_tokens, \
         output_tokens, total_tokens, cost_microdollars, priced, charged, estimated, latency_ms, failed, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)")
    .bind(product)
    .bind(&call.id)
    .bind(&call.user_id)
    .bind(&call.session_id)
    .bind(&call.agent_role)
    .bind(&call.model_used)
    .bind(call.input_tokens)
    .bind(call.output_tokens)
    .bind(call.total_tokens)
    .bind(call.cost_microdollars)
    .bind(call.priced)
    .bind(call.charged)
    .bind(call.estimated)
    .bind(call.latency_ms)
    .bind(call.failed)
    .bind(call.created_at)
    .run(tx)
    .await?;
    sql("INSERT INTO usage_daily AS d (product, user_id, day, model, agent_role, calls, input_tokens, output_tokens, \
         cost_microdollars, failed, latency_ms) VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9, $10) \
         ON CONFLICT (product, user_id, day, model, agent_role) DO UPDATE SET calls = d.calls + 1, \
         input_tokens = d.input_tokens + excluded.input_tokens, \
         output_tokens = d.output_tokens + excluded.output_tokens, \
         cost_microdollars = d.cost_microdollars + excluded.cost_microdollars, \
         failed = d.failed + excluded.failed, latency_ms = d.latency_ms + excluded.latency_ms")
    .bind(product)
    .bind(&call.user_id)
    .bind(day)
    .bind(&call.model_used)
    .bind(&call.agent_role)
    .bind(call.input_tokens)
    .bind(call.output_tokens)
    .bind(call.cost_microdollars)
    .bind(i64::from(call.failed))
    .bind(call.latency_ms)
    .run(tx)
    .await
    .map(drop)
}
