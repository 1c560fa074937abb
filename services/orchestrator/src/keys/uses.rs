//! Calls over users' own keys, written down behind the caller's back.
use tokio::sync::mpsc;
use weft_core::{Clock, new_id};
use weft_db::Tx;
use weft_runtime::{Mesh, Shutdown};

use crate::error::Error;
use crate::keys::OwnKey;
use crate::models::{Meter, ModelError};
use crate::store::Database;
use crate::store::provider_key_use::{UseRow, use_insert};

/// Calls that may wait to be written down; more are forgotten.
const WAITING_MOST: usize = 4_096;
/// Written down at once.
const BATCH: usize = 100;
/// Longest name of a model that is kept, in bytes; a longer one is nobody's.
const MODEL_BYTES_MOST: usize = 200;

/// What the use of a call says that its caller left.
const LEFT: &str = "left";
/// The same of one that went well.
const OK: &str = "ok";

/// A call over a key; whatever ends it, drops this, and dropping it hands it in.
pub struct Using {
    sender: Sender,
    row: UseRow,
    meter: Meter,
}

impl Using {
    /// A call begins.
    pub fn new(sender: Sender, key: &OwnKey, model: &str, meter: Meter) -> Using {
        let row = UseRow {
            product: key.product.clone(),
            id: new_id(),
            provider_key_id: key.id.clone(),
            account_id: key.account_id.clone(),
            model: model[..model.floor_char_boundary(MODEL_BYTES_MOST)].to_owned(),
            prompt_tokens: 0,
            completion_tokens: 0,
            outcome: LEFT.to_owned(),
            created_at: sender.clock.now_ms(),
        };
        Using { sender, row, meter }
    }

    /// It ended by itself.
    pub fn end<T>(mut self, outcome: &Result<T, ModelError>) {
        self.row.outcome = outcome.as_ref().map_or_else(ModelError::problem, |_| OK).to_owned();
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        if let Some(usage) = self.meter.answers().last() {
            let count = |tokens: Option<i64>| tokens.unwrap_or(0).max(0);
            (self.row.prompt_tokens, self.row.completion_tokens) =
                (count(usage.prompt_tokens), count(usage.completion_tokens.or(Some(self.meter.delivered()))));
        }
        // Never waits: a call is not held up by what is only remembered of it.
        if self.sender.rows.try_send(self.row.clone()).is_err() {
            forgotten(1);
        }
    }
}

/// Where calls are handed in. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    rows: mpsc::Sender<UseRow>,
    clock: Clock,
}

/// Starts the writer. At the shutdown it still writes what was handed in.
pub fn start(database: Database, mesh: &Mesh) -> Sender {
    let (rows, waiting) = mpsc::channel(WAITING_MOST);
    mesh.tasks().spawn("key uses", write(database, waiting, mesh.shutdown().clone()));
    Sender { rows, clock: mesh.clock().clone() }
}

async fn write(database: Database, mut waiting: mpsc::Receiver<UseRow>, shutdown: Shutdown) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            taken = waiting.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = shutdown.wait() => waiting.close(),
        }
        if let Err(error) = keep(&database, &batch).await {
            tracing::warn!(%error, uses = batch.len(), "calls over users' keys could not be written down");
            forgotten(batch.len());
        }
        batch.clear();
    }
}

async fn keep(database: &Database, batch: &[UseRow]) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<&UseRow> = batch.iter().collect();
    // In one order everywhere, so that two writers do not wait for each other.
    sorted.sort_by(|a, b| (&a.product, &a.provider_key_id).cmp(&(&b.product, &b.provider_key_id)));
    let write = async |tx: Tx| {
        for row in &sorted {
            use_insert(&tx, row).await?;
        }
        Ok(())
    };
    database.ready()?.db.write("provider_key_uses", write).await
}

fn forgotten(count: usize) {
    metrics::counter!("weft_provider_key_uses_forgotten_total").increment(u64::try_from(count).unwrap_or(0));
}
