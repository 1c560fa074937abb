//! Counts the steps of plans that run at once.
use std::time::Duration;

use weft_cache::{Cache, CacheError};
use weft_runtime::Tasks;

use crate::error::Error;

/// Most steps of one account that are looked for. A plan that allows more allows any number.
const PLACES: i64 = 100;

/// The places that running steps take, over all replicas if the cache is shared.
#[derive(Clone)]
pub struct Runs {
    cache: Cache,
    tasks: Tasks,
}

impl Runs {
    /// Places in this cache.
    pub fn new(cache: Cache, tasks: Tasks) -> Runs {
        Runs { cache, tasks }
    }

    /// Takes one of `limit` places of an account, for `within` at most. None: there is no limit to count against, or nobody
    /// to count; a cache that is away stops no work, since what the work costs is held at billing.
    ///
    /// # Errors
    /// [`Error::Quota`] if all places are taken.
    pub async fn begin(
        &self,
        product: &str,
        account: &str,
        limit: Option<i64>,
        within: Duration,
    ) -> Result<Option<Place>, Error> {
        let Some(limit) = limit.filter(|limit| *limit < PLACES) else { return Ok(None) };
        match self.first(product, account, limit, within).await {
            Ok(Some(key)) => Ok(Some(Place { key, runs: self.clone() })),
            Ok(None) => Err(Error::Quota("your plan runs no more steps at once; wait for one to end or upgrade")),
            Err(error) => {
                tracing::warn!(%error, "running steps cannot be counted");
                Ok(None)
            }
        }
    }

    async fn first(
        &self,
        product: &str,
        account: &str,
        limit: i64,
        within: Duration,
    ) -> Result<Option<String>, CacheError> {
        for place in 0..limit {
            let key = format!("weft:runs:{product}:{account}:{place}");
            if self.cache.set_if_absent(&key, "1", within).await? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}

/// A place that a running step has; dropping it gives it back.
pub struct Place {
    key: String,
    runs: Runs,
}

impl Drop for Place {
    fn drop(&mut self) {
        let (cache, key) = (self.runs.cache.clone(), std::mem::take(&mut self.key));
        self.runs.tasks.spawn("free a place", async move {
            if let Err(error) = cache.delete(&key).await {
                tracing::warn!(%error, "a place is only free again when its time is over");
            }
        });
    }
}
