//! Plans of the built-in model, and what it makes of their steps.
use serde_json::{Value, json};

use crate::domain::day::Day;
use crate::domain::task::TaskStatus;
use crate::models::Choice;
use crate::models::offline::reply::text;
use crate::models::offline::route;
use crate::models::offline::sentence::{self, Intent};
use crate::plans::{Bounds, PlanBuilder, Template, written};

/// Most lines of a text that are looked at.
const LINES: usize = 20;

/// A plan of one template and what becomes of its result, or of the task that a sentence asks for.
pub fn propose(message: &str, templates: &[&'static Template], today: Day) -> String {
    let choices: Vec<Choice<'_>> =
        templates.iter().map(|template| Choice { name: template.id, description: template.description }).collect();
    let chosen = route::choose(message, &choices);
    let builder = match templates.iter().find(|template| template.id == chosen) {
        Some(template) => {
            let builder = PlanBuilder::default().add_llm_step(template.id, serde_json::Map::new(), None);
            template.table.into_iter().fold(builder, |builder, table| builder.add_data_step("create_record", table, 0))
        }
        None => PlanBuilder::default().add_step("create_record", task(message, today), None),
    };
    let agents: Vec<String> = templates.iter().map(|template| template.agent.to_owned()).collect();
    let plan = builder.build("", &Bounds { agents: &agents, may_batch: true });
    plan.map(|plan| written(&plan)).unwrap_or_default()
}

fn task(message: &str, today: Day) -> serde_json::Map<String, Value> {
    let data = match sentence::read(message, today) {
        Intent::Create { title, due, .. } => json!({"title": title, "due_date": due.map(Day::start_ms)}),
        _ => json!({"title": lines(message).next().unwrap_or("?")}),
    };
    [("table", json!("tasks")), ("data", data)].into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a step makes of a text: its lines, put as the template wants them.
pub fn result(template: &Template, message: &str, background: &Value, today: Day) -> String {
    let first = lines(message).next().unwrap_or_default();
    let title = first.strip_prefix("Subject:").unwrap_or(first).trim();
    let rest = lines(message).skip(1).collect::<Vec<_>>().join("\n");
    match template.id {
        "email_to_task" => {
            json!({"title": title, "description": rest, "priority": "medium", "due_date": null}).to_string()
        }
        "meeting_to_tasks" => Value::from_iter(lines(message).map(|line| json!({ "title": line }))).to_string(),
        "project_outline" => json!({"name": title, "description": rest}).to_string(),
        "checkpoint_proposal" => json!([{"title": format!("{title}: first result"), "description": "",
            "date": today.plus(7).start_ms(), "is_ai_suggested": 1, "is_approved": 0}])
        .to_string(),
        "weekly_report" | "day_plan" | "progress_figures" => records(background, today),
        _ => format!("## {title}\n\n{}", lines(&rest).map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n")),
    }
}

/// The tasks that came along, open ones first.
fn records(background: &Value, today: Day) -> String {
    let tasks = background["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_done = |task: &&Value| task["status"] == json!(TaskStatus::Done);
    let (done, mut open): (Vec<&Value>, Vec<&Value>) = tasks.iter().partition(is_done);
    open.sort_by_key(|task| task["due_date"].as_i64().unwrap_or(i64::MAX));
    let listed = |tasks: &[&Value]| {
        let lines = tasks.iter().take(LINES).map(|task| format!("- {}", text(task, "title")));
        lines.collect::<Vec<_>>().join("\n")
    };
    format!("## {today}\n\nOpen: {}\n{}\n\nDone: {}\n{}", open.len(), listed(&open), done.len(), listed(&done))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.trim().trim_start_matches(['-', '*', ' '])).filter(|line| !line.is_empty()).take(LINES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plans::{TEMPLATES, proposed};

    const TODAY: &str = "2026-11-20";

    #[test]
    fn every_plan_of_it_can_be_run() {
        let templates: Vec<&'static Template> = TEMPLATES.iter().collect();
        let agents: Vec<String> = templates.iter().map(|template| template.agent.to_owned()).collect();
        for (message, first) in [
            ("turn this mail into a task", Some("email_to_task")),
            ("report on my week", Some("weekly_report")),
            ("condense this long text", Some("note_summary")),
            ("create a task to call Ana tomorrow", None),
            ("ação?", None),
            ("", None),
        ] {
            let text = propose(message, &templates, Day::parse(TODAY).unwrap());
            let bounds = Bounds { agents: &agents, may_batch: false };
            let plan = proposed(&text).unwrap().build("task_agent", &bounds).unwrap();
            assert_eq!(plan.steps[0].prompt_template.as_deref(), first, "{message}: {text}");
        }
        assert!(propose("create a task to call Ana", &[], Day::parse(TODAY).unwrap()).contains("Call Ana"));
    }

    #[test]
    fn a_step_that_a_program_reads_is_json() {
        let today = Day::parse(TODAY).unwrap();
        let background = json!({"tasks": [{"title": "A", "status": "done"}, {"title": "B", "status": "todo"}]});
        for template in &TEMPLATES {
            let is_data = template.instructions(today).contains("JSON");
            let told = result(template, "Subject: Boat\n- paint it\n- sell it", &background, today);
            assert_eq!(serde_json::from_str::<Value>(&told).is_ok(), is_data, "{}: {told}", template.id);
        }
        let plan = result(Template::get("day_plan").unwrap(), "go", &background, today);
        assert_eq!(plan, "## 2026-11-20\n\nOpen: 1\n- B\n\nDone: 1\n- A");
    }
}
