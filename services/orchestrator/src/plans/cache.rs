//! Keeps plans that hold nothing of a user, so that the same request is not planned, and paid for, twice.
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use weft_proto::json::Field;
use weft_proto::orchestrator::v1::PlanStep;

use super::builder::Plan;

/// Most plans that are kept.
const PLANS: usize = 1_000;

/// What a plan was made of, told apart by 128 bits of it that mean nothing outside this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanKey(u64, u64);

/// The plans that were used last.
pub struct PlanCache {
    salts: [RandomState; 2],
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    plans: HashMap<PlanKey, (u64, Arc<(Plan, String)>)>,
    uses: u64,
}

impl PlanCache {
    /// Nothing yet.
    pub fn new() -> PlanCache {
        PlanCache { salts: [RandomState::new(), RandomState::new()], kept: Mutex::default() }
    }

    /// The key of a request: everything that the plan depends on.
    pub fn key(&self, parts: &[&[u8]]) -> PlanKey {
        PlanKey(self.salts[0].hash_one(parts), self.salts[1].hash_one(parts))
    }

    /// The plan that was kept under this key, and the model that made it.
    pub fn get_plan(&self, key: PlanKey) -> Option<Arc<(Plan, String)>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        let (used, plan) = kept.plans.get_mut(&key)?;
        *used = now;
        Some(Arc::clone(plan))
    }

    /// Keeps a plan, if nothing in it came from a request: its steps name templates, tables and agents alone.
    pub fn keep(&self, key: PlanKey, plan: &Plan, model: &str) {
        if !plan.steps.iter().all(is_impersonal) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        kept.plans.insert(key, (now, Arc::new((plan.clone(), model.to_owned()))));
        if kept.plans.len() > PLANS
            && let Some(oldest) = kept.plans.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            kept.plans.remove(&oldest);
        }
    }
}

/// No data and no variable of a template: `table` and `agent` are words that the builder knows.
fn is_impersonal(step: &PlanStep) -> bool {
    let is_known = |Field { key, .. }: &Field| step.prompt_template.is_none() && (key == "table" || key == "agent");
    step.variables.as_ref().is_none_or(|variables| variables.fields.iter().all(is_known))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::domain::json;
    use crate::plans::{Bounds, PlanBuilder};

    fn plan(data: Option<&str>) -> Plan {
        let agents = ["task_agent".to_owned()];
        let mut builder = PlanBuilder::default().add_llm_step("email_to_task", Map::new(), None).add_data_step(
            "create_record",
            "tasks",
            0,
        );
        if let Some(text) = data {
            let variables = json!({"data": {"text": text}});
            builder = builder.add_step("send_notification", variables.as_object().unwrap().clone(), None);
        }
        builder.build("task_agent", &Bounds { agents: &agents, may_batch: false }).unwrap()
    }

    #[test]
    fn a_plan_is_found_by_the_request_it_was_made_for() {
        let cache = PlanCache::new();
        let key = cache.key(&[b"adiuva", b"make tasks of my mail"]);
        assert!(cache.get_plan(key).is_none());
        cache.keep(key, &plan(None), "m");
        let kept = cache.get_plan(cache.key(&[b"adiuva", b"make tasks of my mail"])).unwrap();
        assert_eq!(*kept, (plan(None), "m".to_owned()));
        for other in [[b"adiuva".as_slice(), b"make tasks of my mail!"], [b"adiuvam", b"ake tasks of my mail"]] {
            assert!(cache.get_plan(cache.key(&other)).is_none());
        }
    }

    #[test]
    fn a_plan_with_anything_of_a_user_is_not_kept() {
        let cache = PlanCache::new();
        let key = cache.key(&[b"x"]);
        cache.keep(key, &plan(Some("call Ana")), "m");
        assert!(cache.get_plan(key).is_none());
        let mut with_variable = plan(None);
        with_variable.steps[0].variables =
            Some(json::message(Map::from_iter([("table".to_owned(), json!("a word of the user's"))])));
        cache.keep(key, &with_variable, "m");
        assert!(cache.get_plan(key).is_none());
    }

    #[test]
    fn the_least_recently_used_plan_makes_room() {
        let cache = PlanCache::new();
        let key = |number: usize| cache.key(&[&number.to_be_bytes()]);
        for number in 0..PLANS {
            cache.keep(key(number), &plan(None), "m");
        }
        assert!(cache.get_plan(key(0)).is_some());
        cache.keep(key(PLANS), &plan(None), "m");
        assert!(cache.get_plan(key(0)).is_some() && cache.get_plan(key(PLANS)).is_some());
        assert!(cache.get_plan(key(1)).is_none());
        assert_eq!(cache.kept.lock().unwrap().plans.len(), PLANS);
    }
}
