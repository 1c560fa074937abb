//! Plain sentences about projects, checkpoints and notes, and what is done for them.
use serde_json::{Value, json};

use crate::domain::day::Day;
use crate::models::offline::phrase::{
    after, after_all, before, capitalised, split_first, split_last, take_day, unquoted,
};
use crate::models::offline::reply;
use crate::models::offline::step::{Step, pick};

/// A kind of thing, and the tools for it.
pub struct Kind {
    noun: &'static str,
    nouns: [&'static str; 2],
    /// The field that holds its name.
    name: &'static str,
    /// The list in what its tool for listing gives back.
    items: &'static str,
    id: &'static str,
    list: &'static str,
    get: Option<&'static str>,
    /// Its tool for making one, by which an agent is known.
    pub create: &'static str,
    update: &'static str,
    delete: &'static str,
}

/// What there is besides tasks.
pub static KINDS: [Kind; 3] = [
    Kind {
        noun: "project",
        nouns: ["projects", "project"],
        name: "name",
        items: "projects",
        id: "project_id",
        list: "list_all_projects",
        get: None,
        create: "create_project",
        update: "update_project",
        delete: "delete_project",
    },
    Kind {
        noun: "checkpoint",
        nouns: ["checkpoints", "checkpoint"],
        name: "title",
        items: "checkpoints",
        id: "checkpoint_id",
        list: "list_checkpoints",
        get: None,
        create: "create_checkpoint",
        update: "update_checkpoint",
        delete: "delete_checkpoint",
    },
    Kind {
        noun: "note",
        nouns: ["notes", "note"],
        name: "title",
        items: "notes",
        id: "note_id",
        list: "list_notes",
        get: Some("get_note"),
        create: "create_note",
        update: "update_note",
        delete: "delete_note",
    },
];

/// What somebody wants.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub enum Wish {
    /// A new one.
    Create {
        /// What it is called.
        name: String,
        /// The text of a note, or words of the name of a checkpoint's project.
        more: String,
        /// By when.
        date: Option<Day>,
    },
    /// All of them, or those of a project.
    List {
        /// Words of the project's name; empty: all.
        of: String,
    },
    /// What is in one.
    Show(String),
    /// Other fields for one.
    Change(String, Change),
    /// One less; `true`: for good, whatever it is.
    Delete(String, bool),
    /// Something else.
    Other,
}

/// What is to be different.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub enum Change {
    /// Its name.
    Rename(String),
    /// Whether it is worked on.
    Archive(bool),
    /// Its day.
    Move(Day),
    /// The user wants it.
    Approve,
    /// More text at its end.
    Append(String),
}

const POLITE: [&str; 9] = ["please", "can you", "could you", "would you", "hey", "hi", "hello", "ok", ","];
const ARTICLES: [&str; 8] = ["a", "an", "another", "the", "new", "my", "our", "all"];
const NAMED: [&str; 6] = ["called", "named", "titled", "for", ":", "about"];
const CREATE: [&str; 7] = ["create", "add", "make", "start", "write", "new", "set up"];
const SHOW: [&str; 8] = ["list", "show", "display", "what are", "which are", "find", "read", "open"];

/// Reads a sentence about this kind of thing; `today` is what "tomorrow" counts from.
pub fn read(kind: &Kind, message: &str, today: Day) -> Wish {
    let text = after_all(message.trim().trim_end_matches(['.', '!', '?', ' ']), &POLITE);
    let readers = [delete, change, append, create, show];
    readers.iter().find_map(|reader| reader(kind, text, today)).unwrap_or(Wish::Other)
}

/// What follows the noun, without articles before it.
fn noun<'a>(kind: &Kind, text: &'a str) -> Option<&'a str> {
    after(after_all(text, &ARTICLES), &kind.nouns)
}

/// Words by which one is named, with or without the noun before them.
fn name(kind: &Kind, text: &str) -> Option<String> {
    let bare = noun(kind, text).unwrap_or_else(|| after_all(text, &["the", "my"]));
    let bare = before(bare, &[kind.noun]).unwrap_or(bare);
    let bare = unquoted(after_all(bare, &NAMED));
    (!bare.is_empty()).then(|| bare.to_owned())
}

fn delete(kind: &Kind, text: &str, _: Day) -> Option<Wish> {
    let rest = after(text, &["delete", "remove", "drop"])?;
    let bare = before(rest, &["for good", "forever", "permanently"]);
    Some(Wish::Delete(name(kind, bare.unwrap_or(rest))?, bare.is_some()))
}

fn change(kind: &Kind, text: &str, today: Day) -> Option<Wish> {
    if let Some(rest) = after(text, &["archive", "close"]).filter(|_| kind.noun == "project") {
        return Some(Wish::Change(name(kind, rest)?, Change::Archive(true)));
    }
    if let Some(rest) = after(text, &["reactivate", "reopen"]).filter(|_| kind.noun == "project") {
        return Some(Wish::Change(name(kind, rest)?, Change::Archive(false)));
    }
    if let Some(rest) = after(text, &["approve", "accept"]).filter(|_| kind.noun == "checkpoint") {
        return Some(Wish::Change(name(kind, rest)?, Change::Approve));
    }
    if let Some(rest) = after(text, &["move", "postpone"]).filter(|_| kind.noun == "checkpoint") {
        let (rest, day) = take_day(rest, today);
        let rest = before(&rest, &["to", "until"]).unwrap_or(&rest);
        return Some(Wish::Change(name(kind, rest)?, Change::Move(day?)));
    }
    let (old, new) = split_last(after(text, &["rename"])?, &[" to ", " as "])?;
    Some(Wish::Change(name(kind, old)?, Change::Rename(unquoted(new).to_owned())))
}

/// "add to the note X: text"
fn append(kind: &Kind, text: &str, _: Day) -> Option<Wish> {
    let rest = after(text, &["add to", "append to", "extend"]).filter(|_| kind.noun == "note")?;
    let (old, more) = split_first(rest, &[": ", " saying "])?;
    Some(Wish::Change(name(kind, old)?, Change::Append(unquoted(more).to_owned())))
}

fn create(kind: &Kind, text: &str, today: Day) -> Option<Wish> {
    let rest = noun(kind, after(text, &CREATE)?)?;
    let rest = after_all(rest, &NAMED);
    let (rest, date) = if kind.noun == "checkpoint" { take_day(rest, today) } else { (rest.to_owned(), None) };
    let parts = match kind.noun {
        "note" => split_first(&rest, &[": ", " saying ", " that says "]),
        "checkpoint" => split_last(&rest, &[" to ", " for ", " in ", " of "]),
        _ => None,
    };
    let (name, more) = parts.unwrap_or((&rest, ""));
    let name = capitalised(unquoted(name));
    let more = unquoted(after_all(more, &["the project", "project", "my"])).to_owned();
    (!name.is_empty()).then_some(Wish::Create { name, more, date })
}

fn show(kind: &Kind, text: &str, _: Day) -> Option<Wish> {
    let asked = after(text, &SHOW).unwrap_or(text);
    let rest = noun(kind, asked)?;
    if kind.get.is_some() && asked.len() < text.len() && !rest.is_empty() && after(asked, &ARTICLES[3..6]).is_some() {
        return Some(Wish::Show(name(kind, asked)?));
    }
    let of = unquoted(after_all(rest, &["of", "for", "in", "about", "the", "project", "with"])).to_owned();
    (asked.len() < text.len() || rest.is_empty()).then_some(Wish::List { of })
}

/// The next step; `results` are those of the tools called so far, in order.
pub fn next(kind: &Kind, wish: &Wish, results: &[Value]) -> Step {
    if let Some(failed) = results.iter().find(|result| result.get("error").is_some()) {
        return Step::Say(reply::failed(failed));
    }
    match wish {
        Wish::Other => Step::Say(reply::introduction()),
        Wish::Create { name, more, date } => made(kind, (name, more, *date), results),
        Wish::List { of } => match results.first() {
            None if kind.noun == "note" => Step::Call(kind.list, json!({ "query": of })),
            None => Step::Call(kind.list, json!({})),
            Some(listed) => Step::Say(told(kind, listed, of)),
        },
        Wish::Show(wanted) | Wish::Change(wanted, _) | Wish::Delete(wanted, _) => with_one(kind, wish, wanted, results),
    }
}

fn made(kind: &Kind, (name, more, date): (&str, &str, Option<Day>), results: &[Value]) -> Step {
    let created = |result: &Value| {
        Step::Say(format!("I created the {} “{}”.", kind.noun, reply::text(&result["created"], kind.name)))
    };
    match (kind.noun, results) {
        ("project", []) => Step::Call(kind.create, json!({ "name": name })),
        ("note", []) => Step::Call(kind.create, json!({"title": name, "content": more})),
        ("checkpoint", []) => Step::Call(kind.list, json!({})),
        ("checkpoint", [listed]) => match pick(&listed["projects"], more, |project| reply::text(project, "name")) {
            Ok(project) => {
                let date = date.map_or(-1, Day::start_ms);
                Step::Call(kind.create, json!({"project_id": project["id"], "title": name, "date": date}))
            }
            Err(found) => Step::Say(reply::unclear("project", more, &found)),
        },
        (_, [.., result]) => created(result),
        _ => Step::Say(reply::introduction()),
    }
}

fn told(kind: &Kind, listed: &Value, of: &str) -> String {
    let line = |item: &Value| {
        let mut line = reply::text(item, kind.name).to_owned();
        if item["status"] == "archived" {
            line.push_str(", archived");
        }
        if let Some(ms) = item["date"].as_i64() {
            line.push_str(&format!(", {}", Day::of_ms(ms)));
        }
        line
    };
    if kind.noun != "checkpoint" || of.is_empty() {
        return reply::things(kind.noun, &listed[kind.items], listed["count"].as_u64().unwrap_or(0), line);
    }
    match pick(&listed["projects"], of, |project| reply::text(project, "name")) {
        Ok(project) => {
            let items = listed[kind.items].as_array().map(Vec::as_slice).unwrap_or_default();
            let of_project: Value =
                items.iter().filter(|item| item["project_id"] == project["id"]).cloned().collect::<Vec<_>>().into();
            let count = of_project.as_array().map_or(0, Vec::len) as u64;
            reply::things(kind.noun, &of_project, count, line)
        }
        Err(found) => reply::unclear("project", of, &found),
    }
}

/// Steps that first need the one somebody means.
fn with_one(kind: &Kind, wish: &Wish, wanted: &str, results: &[Value]) -> Step {
    let Some((listed, later)) = results.split_first() else { return Step::Call(kind.list, json!({})) };
    let item = match pick(&listed[kind.items], wanted, |item| reply::text(item, kind.name)) {
        Ok(item) => item,
        Err(found) => return Step::Say(reply::unclear(kind.noun, wanted, &found)),
    };
    let (id, title) = (&item["id"], reply::text(item, kind.name));
    match (wish, kind.get, later) {
        (Wish::Delete(_, for_good), _, []) if kind.noun == "project" => {
            Step::Call(kind.delete, json!({kind.id: id, "is_confirmed": i64::from(*for_good)}))
        }
        (Wish::Delete(..), _, []) => Step::Call(kind.delete, json!({ kind.id: id })),
        (Wish::Delete(..), ..) => Step::Say(reply::changed(&format!("deleted the {}", kind.noun), title)),
        (Wish::Show(_), Some(get), []) | (Wish::Change(..), Some(get), []) => Step::Call(get, json!({ kind.id: id })),
        (Wish::Show(_), _, [shown, ..]) => {
            Step::Say(format!("## {title}\n\n{}", reply::text(&shown[kind.noun], "content")))
        }
        (Wish::Change(_, change), get, later) if later.len() == usize::from(get.is_some()) => {
            let mut fields = changed(kind, change, later);
            fields[kind.id] = id.clone();
            Step::Call(kind.update, fields)
        }
        (Wish::Change(_, change), ..) => Step::Say(reply::changed(verb(change), title)),
        _ => Step::Say(reply::introduction()),
    }
}

fn changed(kind: &Kind, change: &Change, later: &[Value]) -> Value {
    match change {
        Change::Rename(new) => json!({ kind.name: new }),
        Change::Archive(is_archived) => json!({"status": if *is_archived { "archived" } else { "active" }}),
        Change::Move(day) => json!({"date": day.start_ms()}),
        Change::Approve => json!({"is_approved": 1}),
        Change::Append(more) => {
            let old = later.first().map(|shown| reply::text(&shown[kind.noun], "content")).unwrap_or_default();
            json!({"content": format!("{old}\n{more}").trim()})
        }
    }
}

fn verb(change: &Change) -> &'static str {
    match change {
        Change::Rename(_) => "renamed",
        Change::Archive(true) => "archived",
        Change::Archive(false) => "reactivated",
        Change::Move(_) => "moved",
        Change::Approve => "approved",
        Change::Append(_) => "added that to",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(noun: &str, message: &str) -> Wish {
        let kind = KINDS.iter().find(|kind| kind.noun == noun).unwrap();
        read(kind, message, Day::parse("2026-11-20").unwrap())
    }

    fn creates(name: &str, more: &str, date: Option<&str>) -> Wish {
        let date = date.map(|day| Day::parse(day).unwrap());
        Wish::Create { name: name.to_owned(), more: more.to_owned(), date }
    }

    fn changes(name: &str, change: Change) -> Wish {
        Wish::Change(name.to_owned(), change)
    }

    fn lists(of: &str) -> Wish {
        Wish::List { of: of.to_owned() }
    }

    #[test]
    fn sentences_about_projects_are_understood() {
        for (message, wish) in [
            ("start a project called boat", creates("Boat", "", None)),
            ("Please create a new project: “Boat”.", creates("Boat", "", None)),
            ("list my projects", lists("")),
            ("my projects", lists("")),
            ("archive the project Boat", changes("Boat", Change::Archive(true))),
            ("reactivate Boat", changes("Boat", Change::Archive(false))),
            ("rename the project Boat to Ship", changes("Boat", Change::Rename("Ship".to_owned()))),
            ("delete the Boat project", Wish::Delete("Boat".to_owned(), false)),
            ("delete the project Boat for good", Wish::Delete("Boat".to_owned(), true)),
            ("what is the capital of France?", Wish::Other),
        ] {
            assert_eq!(understood("project", message), wish, "{message}");
        }
    }

    #[test]
    fn sentences_about_checkpoints_are_understood() {
        let friday = Some("2026-11-27");
        let moved = Change::Move(Day::parse("2026-12-01").unwrap());
        for (message, wish) in [
            ("add a checkpoint Launch to Boat by next Friday", creates("Launch", "Boat", friday)),
            ("create a checkpoint called launch for the project Boat", creates("Launch", "Boat", None)),
            ("list the checkpoints", lists("")),
            ("show checkpoints of Boat", lists("Boat")),
            ("move the checkpoint Launch to 2026-12-01", changes("Launch", moved)),
            ("approve the checkpoint Launch", changes("Launch", Change::Approve)),
            ("remove the checkpoint Launch", Wish::Delete("Launch".to_owned(), false)),
            ("hello", Wish::Other),
        ] {
            assert_eq!(understood("checkpoint", message), wish, "{message}");
        }
    }

    #[test]
    fn sentences_about_notes_are_understood() {
        for (message, wish) in [
            ("write a note called food: milk and bread", creates("Food", "milk and bread", None)),
            ("create a note Food", creates("Food", "", None)),
            ("list my notes", lists("")),
            ("find notes about boats", lists("boats")),
            ("read the note Food", Wish::Show("Food".to_owned())),
            ("add to the note Food: eggs", changes("Food", Change::Append("eggs".to_owned()))),
            ("rename my note Food to Meals", changes("Food", Change::Rename("Meals".to_owned()))),
            ("delete the note Food", Wish::Delete("Food".to_owned(), false)),
            ("I like the sea", Wish::Other),
        ] {
            assert_eq!(understood("note", message), wish, "{message}");
        }
    }

    #[test]
    fn a_note_is_read_before_it_is_changed() {
        let kind = &KINDS[2];
        let wish = changes("food", Change::Append("eggs".to_owned()));
        let listed = json!({"count": 1, "notes": [{"id": "n1", "title": "Food"}]});
        let shown = json!({"note": {"id": "n1", "title": "Food", "content": "milk"}});
        assert_eq!(next(kind, &wish, &[]), Step::Call("list_notes", json!({})));
        assert_eq!(next(kind, &wish, std::slice::from_ref(&listed)), Step::Call("get_note", json!({"note_id": "n1"})));
        let update = Step::Call("update_note", json!({"note_id": "n1", "content": "milk\neggs"}));
        assert_eq!(next(kind, &wish, &[listed.clone(), shown.clone()]), update);
        let said = next(kind, &wish, &[listed, shown, json!({"updated": {}})]);
        assert_eq!(said, Step::Say("I added that to “Food”.".to_owned()));
    }

    #[test]
    fn a_checkpoint_finds_its_project_or_asks() {
        let kind = &KINDS[1];
        let wish = creates("Launch", "boat", None);
        let listed = json!({"count": 0, "checkpoints": [], "projects": [{"id": 7, "name": "Boat"}]});
        assert_eq!(
            next(kind, &wish, std::slice::from_ref(&listed)),
            Step::Call("create_checkpoint", json!({"project_id": 7, "title": "Launch", "date": -1}))
        );
        let Step::Say(said) = next(kind, &creates("Launch", "car", None), &[listed]) else { panic!("it guessed") };
        assert!(said.contains("cannot find a project like “car”"), "{said}");
    }
}
