//! Who has which model.
use crate::models::dialect::Dialect;
use crate::models::openai::Cap;

/// A vendor of models, or whoever stands in for it at another URL.
#[derive(Debug)]
pub struct Vendor {
    /// Its name, in `name/model` too.
    pub name: &'static str,
    /// The setting that holds the key.
    pub key: &'static str,
    /// The setting that holds the base URL.
    pub url: &'static str,
    /// Where the vendor itself is.
    pub home: &'static str,
    /// What it speaks.
    pub dialect: Dialect,
    /// How the names of its models begin.
    prefixes: &'static [&'static str],
}

/// Place of a vendor in [`VENDORS`].
pub const OPENAI: usize = 0;
/// The same.
pub const ANTHROPIC: usize = 1;
/// The same.
pub const GEMINI: usize = 2;
/// The same.
pub const XAI: usize = 3;

/// The vendors.
pub static VENDORS: [Vendor; 4] = [
    Vendor {
        name: "openai",
        key: "OPENAI_API_KEY",
        url: "OPENAI_BASE_URL",
        home: "https://api.openai.com/v1",
        dialect: Dialect::OpenAi(Cap::MaxCompletionTokens),
        prefixes: &["gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-"],
    },
    Vendor {
        name: "anthropic",
        key: "ANTHROPIC_API_KEY",
        url: "ANTHROPIC_BASE_URL",
        home: "https://api.anthropic.com",
        dialect: Dialect::Anthropic,
        prefixes: &["claude-"],
    },
    Vendor {
        name: "gemini",
        key: "GEMINI_API_KEY",
        url: "GEMINI_BASE_URL",
        home: "https://generativelanguage.googleapis.com",
        dialect: Dialect::Gemini,
        prefixes: &["gemini-"],
    },
    Vendor {
        name: "xai",
        key: "XAI_API_KEY",
        url: "XAI_BASE_URL",
        home: "https://api.x.ai/v1",
        dialect: Dialect::OpenAi(Cap::MaxCompletionTokens),
        prefixes: &["grok-"],
    },
];

/// Any server of a user's own that speaks OpenAI's dialect; its models are `compatible/<name>`.
pub static COMPATIBLE: Vendor =
    Vendor { name: "compatible", key: "", url: "", home: "", dialect: Dialect::OpenAi(Cap::MaxTokens), prefixes: &[] };

/// The vendor of this name, for which users may have keys of their own.
pub fn named(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().chain([&COMPATIBLE]).find(|vendor| vendor.name == name)
}

/// Whether this is a model of a server of a user's own.
pub fn is_compatible(model: &str) -> bool {
    matches!(model.split_once('/'), Some((name, _)) if name == COMPATIBLE.name)
}

/// Whose own key a call for this model goes over, and under which name the model is known there.
pub fn of_own_key(model: &str) -> Option<(&'static Vendor, &str)> {
    match model.split_once('/') {
        Some((name, own)) if name == COMPATIBLE.name && !own.is_empty() => Some((&COMPATIBLE, own)),
        _ => target(model, |_| false).map(|target| (&VENDORS[target.vendor], target.model)),
    }
}

/// Short names that products use, the vendor, and its own name for the model: those that cost what the manifests say.
const ALIASES: [(&str, usize, &str); 3] =
    [("sonnet", ANTHROPIC, "claude-sonnet-4-6"), ("opus", ANTHROPIC, "claude-opus-4-6"), ("grok", XAI, "grok-4")];

/// Who is asked for a model, and under which name.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Place in [`VENDORS`].
    pub vendor: usize,
    /// The vendor's name of the model.
    pub model: &'a str,
}

/// Who has a model: a short name, `vendor/model`, or a name that begins like a vendor's. Any other name goes to the
/// first vendor whose URL the operator has set (`takes_any`, by place): nobody else knows what that server has.
pub fn target(model: &str, takes_any: impl Fn(usize) -> bool) -> Option<Target<'_>> {
    if let Some((_, vendor, own)) = ALIASES.iter().find(|(alias, ..)| *alias == model) {
        return Some(Target { vendor: *vendor, model: own });
    }
    if let Some((name, own)) = model.split_once('/').filter(|(_, own)| !own.is_empty())
        && let Some(vendor) = VENDORS.iter().position(|vendor| vendor.name == name)
    {
        return Some(Target { vendor, model: own });
    }
    let begins = |vendor: &Vendor| vendor.prefixes.iter().any(|prefix| model.starts_with(prefix));
    let known = VENDORS.iter().position(begins);
    known.or_else(|| (0..VENDORS.len()).find(|&at| takes_any(at))).map(|vendor| Target { vendor, model })
}

#[cfg(test)]
mod tests {
    use weft_product::Products;

    use super::*;

    #[test]
    fn every_model_of_every_built_in_product_has_a_vendor() {
        let mut seen = 0;
        for product in Products::builtin().iter() {
            let of_plans =
                product.plans.iter().flat_map(|plan| plan.models.allowed.iter().chain(plan.models.default.values()));
            let of_product = [&product.models.default, &product.models.classifier];
            for model in of_product.into_iter().chain(product.models.roles.values()).chain(of_plans) {
                assert!(target(model, |_| false).is_some(), "{}: {model}", product.slug);
                seen += 1;
            }
        }
        assert!(seen > 10);
    }

    #[test]
    fn a_name_says_whose_it_is() {
        for (model, vendor, own) in [
            ("opus", ANTHROPIC, "claude-opus-4-6"),
            ("claude-haiku-4-5", ANTHROPIC, "claude-haiku-4-5"),
            ("gpt-4o-mini", OPENAI, "gpt-4o-mini"),
            ("o3-mini", OPENAI, "o3-mini"),
            ("gemini-2.0-flash", GEMINI, "gemini-2.0-flash"),
            ("grok-4-fast", XAI, "grok-4-fast"),
            ("openai/gemini-2.0-flash", OPENAI, "gemini-2.0-flash"),
            ("openai/meta-llama/llama-3.3", OPENAI, "meta-llama/llama-3.3"),
            ("anthropic/stub-5-3", ANTHROPIC, "stub-5-3"),
        ] {
            assert_eq!(target(model, |_| true), Some(Target { vendor, model: own }), "{model}");
        }
    }

    #[test]
    fn any_other_name_goes_to_a_server_of_the_operators_own() {
        for model in ["llama3.2", "meta-llama/llama-3.3", "openai/", "stub-5-3", ""] {
            assert_eq!(target(model, |_| false), None, "{model}");
            assert_eq!(target(model, |at| at >= GEMINI), Some(Target { vendor: GEMINI, model }));
        }
    }
}
