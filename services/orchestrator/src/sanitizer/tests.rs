//! The streaming core, over the fingerprints of every product.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::fingerprints::{RUN, definitions, prompts};
use super::normal::{Escapes, fold, is_invisible};
use super::stream::MARKER;
use super::*;
use crate::agents::Registry;
use crate::prompts::Prompts;
use weft_product::Products;

/// One set of agents that some product has.
struct Known {
    automaton: Arc<Automaton>,
    fingerprints: BTreeSet<String>,
    /// How many characters fingerprints have.
    lengths: BTreeSet<usize>,
    /// What models are told.
    sources: Vec<String>,
}

impl Known {
    /// Whether a fingerprint is in a text in normal form.
    fn is_in(&self, text: &str) -> bool {
        let letters: Vec<char> = text.chars().collect();
        let known = |window: &[char]| self.fingerprints.contains(&window.iter().collect::<String>());
        self.lengths.iter().any(|&length| letters.windows(length).any(known))
    }
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let registries = registries();
    let of = |(_, registry): (&str, &Registry)| known(&registry.all().collect::<Vec<_>>());
    registries.iter().filter(|(_, registry)| registry.all().next().is_some()).map(of).collect()
});

fn registries() -> Registries {
    Registries::new(&Products::builtin(), &Prompts::default()).unwrap()
}

fn known(agents: &[&Agent]) -> Known {
    let fingerprints = Fingerprints::of(agents).texts().clone();
    let sources = prompts(agents).into_iter().chain(agents.iter().flat_map(|agent| definitions(agent)));
    Known {
        automaton: Arc::new(Automaton::new(&fingerprints).unwrap()),
        lengths: fingerprints.iter().map(|fingerprint| fingerprint.chars().count()).collect(),
        fingerprints,
        sources: sources.filter(|source| normal::normal(source).chars().count() >= RUN).collect(),
    }
}

/// The product with the most to hide.
fn richest() -> &'static Known {
    KNOWN.iter().max_by_key(|known| known.fingerprints.len()).unwrap()
}

/// What gets out of a text that comes in these pieces.
fn told<'a>(known: &Known, pieces: impl IntoIterator<Item = &'a str>) -> String {
    let mut stream = Stream::new(Arc::clone(&known.automaton));
    let mut told: String = pieces.into_iter().map(|piece| stream.push(piece)).collect();
    told.push_str(&stream.finish());
    told
}

/// Whether a fingerprint can be read in a text, looked for without the automaton. A marker ends what is before it: its
/// own letters are nobody's, even where they happen to go on with a word.
fn leaks(known: &Known, text: &str) -> bool {
    text.split(MARKER).any(|part| {
        let (mut written, mut decoded, mut escapes) = (String::new(), String::new(), Escapes::default());
        for (at, letter) in part.char_indices() {
            fold(letter, |part| written.push(part));
            escapes.read(letter, at..at + letter.len_utf8(), |letter, _| fold(letter, |part| decoded.push(part)));
        }
        escapes.end(|letter, _| fold(letter, |part| decoded.push(part)));
        [written, decoded].iter().any(|text| known.is_in(text))
    })
}

/// A generator that gives the same numbers every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Constants of Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

/// The same text in pieces of up to `most` characters.
fn pieces<'a>(text: &'a str, dice: &mut Dice, most: usize) -> Vec<&'a str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = 1 + dice.below(most);
        let (piece, after) = rest.split_at(rest.char_indices().nth(length).map_or(rest.len(), |(at, _)| at));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn letters(text: &str) -> Vec<&str> {
    text.split_inclusive(|_: char| true).collect()
}

#[test]
fn every_fingerprint_split_at_every_position_is_removed() {
    for known in KNOWN.iter() {
        for fingerprint in &known.fingerprints {
            for at in (1..fingerprint.len()).filter(|&at| fingerprint.is_char_boundary(at)) {
                let (left, right) = fingerprint.split_at(at);
                let mut stream = Stream::new(Arc::clone(&known.automaton));
                assert_eq!(stream.push(left), "", "{fingerprint} split at {at}");
                assert_eq!(stream.push(right) + &stream.finish(), MARKER, "{fingerprint} split at {at}");
            }
            assert_eq!(told(known, letters(fingerprint)), MARKER, "{fingerprint}");
        }
    }
    assert!(richest().fingerprints.len() > 1_000, "{}", richest().fingerprints.len());
}

/// A description may be too short to be known by itself; it is by what stands around it.
#[test]
fn no_description_of_a_tool_is_told_where_a_model_sorts_keys() {
    let registries = registries();
    for ((_, registry), known) in registries.iter().filter(|(_, registry)| registry.all().next().is_some()).zip(&*KNOWN)
    {
        for spec in registry.all().flat_map(|agent| agent.specs().0) {
            let function = json!({"name": spec.name, "description": spec.description, "parameters": spec.parameters});
            let mut tools = json!([{"type": "function", "function": function}]);
            tools.sort_all_objects();
            let text = told(known, [tools.to_string().as_str()]);
            for (name, schema) in spec.parameters["properties"].as_object().unwrap() {
                assert!(!text.contains(schema["description"].as_str().unwrap()), "{name} of {}: {text}", spec.name);
            }
        }
    }
}

/// A whole prompt is cut in two at so many places; its fingerprints are at every one.
const SPLITS: usize = 100;

#[test]
fn every_prompt_and_definition_is_removed_however_it_is_cut() {
    for known in KNOWN.iter() {
        for source in &known.sources {
            // In letters that no prompt has: a letter of ours before a source may stand before it in another one.
            let text = format!("Да: {source} Пока.");
            let whole = told(known, [text.as_str()]);
            assert!(whole.starts_with("Да: ") && whole.ends_with("Пока.") && whole.contains(MARKER), "{whole}");
            assert!(!leaks(known, &whole), "{whole}");
            let far = 1 + text.len() / SPLITS;
            for at in (0..text.len()).step_by(far).filter(|&at| text.is_char_boundary(at)) {
                let (left, right) = text.split_at(at);
                assert_eq!(told(known, [left, right]), whole, "split at {at}");
            }
            assert_eq!(told(known, letters(&text)), whole);
            for seed in 0..20 {
                let mut dice = Dice(seed);
                let most = 1 + dice.below(64);
                assert_eq!(told(known, pieces(&text, &mut dice, most)), whole, "seed {seed}");
            }
        }
    }
}

#[test]
fn no_32_letters_of_a_prompt_in_a_row_get_out() {
    let known = richest();
    let registries = registries();
    let agents: Vec<&Agent> = registries.of("adiuva").unwrap().all().collect();
    for prompt in prompts(&agents) {
        let places: Vec<usize> =
            prompt.char_indices().filter(|(_, letter)| letter.is_alphanumeric()).map(|(at, _)| at).collect();
        for window in places.windows(RUN) {
            let text = &prompt[window[0]..=window[RUN - 1]];
            assert_eq!(told(known, [format!("Да, {text}").as_str()]), format!("Да, {MARKER}"), "{text}");
            let shorter = &prompt[window[0]..window[RUN - 1]];
            assert_eq!(told(known, [shorter]), shorter);
        }
    }
}

/// The ways to write a text that must make no difference.
fn disguises(text: &str) -> Vec<(&'static str, String)> {
    let between = |what: &str| text.chars().map(|letter| format!("{letter}{what}")).collect::<String>();
    let by_code = |open: &str, close: &str, hex: usize| {
        text.encode_utf16().fold(String::new(), |mut escaped, unit| {
            let _written = write!(escaped, "{open}{unit:0hex$x}{close}");
            escaped
        })
    };
    let wide = text.chars().map(|letter| match letter {
        '!'..='~' => char::from_u32(u32::from(letter) + 0xfee0).unwrap(),
        ' ' => '\u{3000}',
        other => other,
    });
    let json = serde_json::to_string(text).unwrap();
    vec![
        ("upper case", text.to_uppercase()),
        ("spaced", between(" ")),
        ("one letter a line", between("\r\n")),
        ("without spaces", text.split_whitespace().collect()),
        ("zero width", between("\u{200b}\u{feff}")),
        ("soft hyphens", between("\u{ad}")),
        ("hyphens", between("-")),
        ("accents", between("\u{301}")),
        ("full width", wide.collect()),
        ("bullets", text.replace('\n', "\n> * ")),
        ("json in json", serde_json::to_string(&json).unwrap()),
        ("json", json),
        ("unicode escapes", by_code("\\u", "", 4)),
        ("double unicode escapes", by_code("\\\\u", "", 4)),
        ("byte escapes", by_code("\\x", "", 2)),
        ("entities", by_code("&#x", ";", 1)),
        ("escaped entities", by_code("&amp;#x", ";", 1)),
        ("code points", by_code("\\u{", "}", 1)),
        ("percent", by_code("%", "", 2)),
        ("url", text.replace(' ', "%20").replace('\n', "%0A").replace('\'', "%27")),
        ("html", text.replace('\'', "&#39;").replace(' ', "&nbsp;").replace('\n', "&#10;")),
    ]
}

#[test]
fn a_prompt_in_disguise_is_removed() {
    let known = richest();
    let prompt = &known.sources[0];
    for (name, text) in disguises(prompt) {
        let whole = told(known, [text.as_str()]);
        assert!(!leaks(known, &whole), "{name}: {whole}");
        assert!(whole.len() < 200, "{name}: {whole}");
        assert_eq!(told(known, letters(&text)), whole, "{name}");
        for seed in 0..20 {
            assert_eq!(told(known, pieces(&text, &mut Dice(seed), 9)), whole, "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_backslash_or_an_ampersand_before_a_fingerprint_does_not_hide_it() {
    let known = richest();
    for fingerprint in &known.fingerprints {
        for before in ["\\", "&", "%", "%2", "\\u", "\\u{", "\\u00", "&#", "&am"] {
            let whole = told(known, [before, fingerprint]);
            assert!(!leaks(known, &whole) && whole.contains(MARKER), "{before}{fingerprint}: {whole}");
        }
    }
}

#[test]
fn the_answer_goes_on_after_what_was_removed() {
    let known = richest();
    let prompt = known.sources[0].trim_end_matches('.');
    for (before, after) in
        [("", ""), ("Okay — ", " ✓ Anything else?"), ("é\u{200b}", "\u{200b}\u{301}!"), ("🙂", "日本")]
    {
        let whole = told(known, [format!("{before}{prompt}{after}").as_str()]);
        // What is not seen goes with the letter before it.
        let after = after.trim_start_matches(is_invisible);
        assert_eq!(whole, format!("{before}{MARKER}{after}"));
    }
    let prompt = format!("{prompt}.");
    let twice = told(known, [format!("{prompt}\n--- once more ---\n{prompt}").as_str()]);
    assert_eq!(twice.matches(MARKER).count(), 2, "{twice}");
    assert!(twice.contains("--- once more ---"), "{twice}");
}

#[test]
fn text_that_cannot_match_is_told_at_once() {
    let known = richest();
    let mut stream = Stream::new(Arc::clone(&known.automaton));
    for piece in ["Привет, ", "мир! ", "日本語", " ✓ ", "🙂"] {
        assert_eq!(stream.push(piece), piece);
    }
    assert_eq!(stream.push("You are the task as"), "");
    assert_eq!(stream.push(" if — "), "You are the task as if — ".split_at("You are the task a".len()).0.to_owned());
}

#[test]
fn no_more_than_the_longest_open_prefix_is_held_back() {
    let known = richest();
    let longest = known.automaton.longest();
    let mut dice = Dice(1);
    for text in benign(&mut dice).take(200) {
        let (mut stream, mut waiting) = (Stream::new(Arc::clone(&known.automaton)), String::new());
        for piece in pieces(&text, &mut dice, 12) {
            waiting.push_str(piece);
            let told = stream.push(piece);
            waiting = waiting.strip_prefix(&told).expect("what is told is what came").to_owned();
            let held = normal::normal(&waiting);
            assert!(held.len() < longest, "{waiting}");
            let open = known.fingerprints.range(held.clone()..).next().is_some_and(|next| next.starts_with(&held));
            // With an escape in it there are two readings.
            let escaped = waiting.contains(['&', '\\', '%']);
            assert!(escaped || open, "{waiting} is held back for nothing");
        }
    }
}

/// Replies as an assistant writes them, and sentences of the project's own texts.
#[expect(clippy::too_many_lines, reason = "a list of sentences")]
fn benign(dice: &mut Dice) -> impl Iterator<Item = String> + use<> {
    const DOCUMENTS: [&str; 4] = [
        include_str!("../../../../README.md"),
        include_str!("../../../../ARCHITECTURE.md"),
        include_str!("../../../../gateway/README.md"),
        include_str!("../../README.md"),
    ];
    const OPENINGS: [&str; 10] = [
        "Sure! ",
        "Done. ",
        "",
        "Here you go: ",
        "Of course — ",
        "Good question. ",
        "Hello Ana, ",
        "All right, ",
        "I had a look. ",
        "Okay.\n\n",
    ];
    const FORMS: [&str; 38] = [
        "I created the task “{}”, due {d}.",
        "You have {n} tasks that are due today:\n- {}\n- {}\n- {}",
        "The task “{}” is done now, and “{}” is in progress.",
        "I can create, list, update and delete tasks, and comment on them.",
        "I set the priority of “{}” to high and its due date to {d}.",
        "There is no task with the name “{}”. Do you mean “{}”?",
        "To do this I call create_task with the title \"{}\" and then list_tasks_due_today.",
        "```json\n{\"title\": \"{}\", \"status\": \"in_progress\", \"priority\": \"low\", \"due_date\": {n}}\n```",
        "Several tasks fit: {} and {}. Which one do you mean?",
        "I added the comment to “{}” and deleted the other comment as you asked.",
        "None of your tasks is due today; the next one, “{}”, is due on {d}.",
        "A day has 24 hours, a week 7 days; you have {n} tasks left & {n} comments.",
        "{\"type\": \"object\", \"properties\": {\"id\": {\"type\": \"string\", \"minLength\": 1}}, \"required\": [\"id\"], \"additionalProperties\": false}",
        "Your file is at C:\\users\\new\\tasks.txt, \\o/",
        "Let me list the tasks that are due today. You can change the status or the priority of each.",
        "I cannot help with that, but I can tell you about your tasks and the comments on them.",
        "I started the project “{}”; it is active. Shall I add a checkpoint?",
        "You have {n} active projects and {n} archived ones:\n- {}\n- {}",
        "I archived the project “{}” instead of deleting it. Tell me if you want it gone for good.",
        "The project “{}” has {n} checkpoints; the next one, “{}”, is on {d}.",
        "I moved the checkpoint “{}” to {d}. Do you approve it?",
        "I suggest three checkpoints for “{}”: a first draft on {d}, a review on {d} and the end on {d}.",
        "Which project does the checkpoint belong to, “{}” or “{}”?",
        "I wrote the note “{}”:\n\n# {}\n\n- {}\n- {}\n\n**Open:** {}",
        "Your note “{}” says: {}. I added “{}” at the end and kept the rest.",
        "I read the note before I changed it; its title is now “{}”.",
        "There are {n} notes about this. The titles are “{}” and “{}”; which one do you mean?",
        "| Project | Open | Done |\n|---|---|---|\n| {} | {n} | {n} |\n| {} | {n} | {n} |",
        "```json\n{\"project_id\": \"{}\", \"title\": \"{}\", \"date\": {n}, \"is_approved\": 0}\n```",
        "To change it I call get_note first and then update_note with the new content.",
        "You are free on {d} from 9:00 to 11:00 (UTC); “{}” and “{}” overlap.",
        "Dear Ana,\n\nthank you for your mail about “{}”. I will answer by {d}.\n\nKind regards",
        "The mail asks you for one thing: {}. I can make a task of it, due {d}.",
        "This week you finished {n} tasks; “{}” is late, and “{}” is under way.",
        "The plan for today: 1. {} 2. {} 3. {}. The rest can wait until {d}.",
        "In short: {}. Open questions: {}?",
        "It is a trend only with more points in time; so far there are {n} records.",
        "The weekly report is ready as a note in Markdown with three headings and a list of next steps.",
    ];
    const THINGS: [&str; 14] = [
        "Call Ana",
        "Buy milk",
        "Pay the rent",
        "Prepare tomorrow's meeting",
        "Write the report",
        "Renew the passport",
        "Água para as plantas",
        "Delete old comments",
        "Update the task list",
        "Fix the login & retry",
        "Ask for help",
        "Task: plan the day",
        "Read the instructions of the printer",
        "Answer Bo in his language",
    ];
    let sentences: Vec<&str> =
        DOCUMENTS.iter().flat_map(|text| text.split(['.', '\n', '|', ';'])).filter(|text| text.len() > 20).collect();
    let mut dice = Dice(dice.below(1 << 30) as u64);
    std::iter::repeat_with(move || {
        let mut reply = dice.pick(&OPENINGS).to_owned();
        for _ in 0..=dice.below(3) {
            let mut form = dice.pick(&FORMS).replace("{n}", &dice.below(500).to_string());
            form = form.replace("{d}", &format!("2026-{:02}-{:02}", 1 + dice.below(12), 1 + dice.below(28)));
            while form.contains("{}") {
                form = form.replacen("{}", dice.pick(&THINGS), 1);
            }
            reply.push_str(&form);
            reply.push(' ');
            reply.push_str(dice.pick(&sentences));
        }
        reply
    })
}

#[test]
fn of_10000_benign_replies_at_most_10_are_altered() {
    let known = richest();
    let replies: Vec<String> = benign(&mut Dice(7)).take(10_000).collect();
    let altered: Vec<&String> = replies.iter().filter(|reply| told(known, [reply.as_str()]) != **reply).collect();
    assert!(altered.len() <= 10, "{}: {:?}", altered.len(), altered.first());
    let distinct: BTreeSet<&String> = replies.iter().collect();
    assert!(distinct.len() > 9_000, "{}", distinct.len());
}

#[test]
fn fingerprints_are_of_what_is_sent_and_of_nothing_shorter() {
    let known = richest();
    for fingerprint in &known.fingerprints {
        assert_eq!(&normal::normal(fingerprint), fingerprint);
        assert!((20..=RUN).contains(&fingerprint.chars().count()), "{fingerprint}");
    }
    for harmless in
        ["create_task", "list_tasks_due_today", "is_ai_suggested", "Create a task.", "Id of the task.", "task_agent"]
    {
        assert_eq!(told(known, [harmless]), harmless);
    }
    for agents in [["task_agent", "task_agent"], ["offline", "task_agent"]] {
        assert!(Sanitizers::new(&registries()).unwrap().of(agents[0]).is_none());
    }
}

#[test]
fn the_list_of_any_agents_is_known() {
    let agent = |name, description| Agent::built_in(name, description, crate::prompts::Prompt::TaskAgent, Vec::new());
    let agents = [
        agent("task_agent", "Tasks and whatever is to be done about them."),
        agent("note_agent", "Notes in Markdown, long ones and short ones."),
        agent("mail_agent", "Letters, written and read and sorted away."),
    ];
    let agents: Vec<&Agent> = agents.iter().collect();
    let known = known(&agents);
    for chosen in [&agents[..], &agents[..2], &agents[1..], &[agents[0], agents[2]][..]] {
        let choices: Vec<_> = chosen.iter().map(|agent| agent.choice()).collect();
        let prompt = crate::agents::classifier::instructions(&choices);
        assert_eq!(told(&known, letters(&prompt)), format!("{MARKER}."), "{prompt}");
    }
}

/// Parts of prompts, what may hide them, and other text.
fn mixed() -> impl Strategy<Value = String> {
    let sources = &richest().sources;
    let part = (0..sources.len(), 0..4_000_usize, 1..80_usize).prop_map(|(source, at, length)| {
        let letters: Vec<char> = richest().sources[source].chars().collect();
        letters.iter().cycle().skip(at % letters.len()).take(length).collect::<String>()
    });
    let disguised = (part.clone(), 0..21_usize).prop_map(|(part, way)| disguises(&part).swap_remove(way).1);
    let other = proptest::collection::vec(
        prop_oneof![
            any::<char>().prop_map(|letter| letter.to_string()),
            proptest::sample::select(vec![
                "\\", "&", "%", "\\u", "\\u{", "&amp;", "&#", ";", "\\n", " ", "\u{200b}", "u0", "the task"
            ])
            .prop_map(str::to_owned),
        ],
        0..8,
    )
    .prop_map(|parts| parts.concat());
    proptest::collection::vec(prop_oneof![3 => part, 1 => disguised, 3 => other], 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_make_no_difference_and_nothing_leaks(text in mixed(), seed in any::<u64>(), most in 1_usize..40) {
        let known = richest();
        let whole = told(known, [text.as_str()]);
        prop_assert_eq!(&told(known, pieces(&text, &mut Dice(seed), most)), &whole);
        prop_assert!(!leaks(known, &whole), "{}", whole);
        if !leaks(known, &text) {
            prop_assert_eq!(&whole, &text);
        }
    }

    #[test]
    fn any_other_text_arrives_byte_for_byte(text in any::<String>()) {
        prop_assert_eq!(told(richest(), [text.as_str()]), text);
    }
}
