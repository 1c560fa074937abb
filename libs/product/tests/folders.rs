//! Folders of manifests: what they add, what they replace, what they may not do to each other.
use std::fs;

use tempfile::TempDir;
use weft_product::{Limit, Products};

use crate::mistakes::{MANIFEST, complaints};

/// A folder with these files.
pub fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn a_manifest_in_the_folder_adds_a_product() {
    let folder = folder(&[("shop.toml", MANIFEST), ("notes.txt", "not a manifest")]);
    let products = Products::load(Some(folder.path())).unwrap();
    assert_eq!(products.iter().count(), 6);
    assert_eq!(products.by_host("shop.test").unwrap().slug, "shop");
}

#[test]
fn a_manifest_in_the_folder_replaces_the_built_in_one_of_its_slug() {
    let text = include_str!("../../../products/cofounder.toml");
    let changed = text.replacen("max_sessions_per_day = 10,", "max_sessions_per_day = 12,", 1);
    let folder = folder(&[("any-name.toml", &changed)]);
    let products = Products::load(Some(folder.path())).unwrap();
    assert_eq!(products.iter().count(), 5);
    let cofounder = products.get("cofounder").unwrap();
    assert_eq!(cofounder.plan("bootstrapper").unwrap().limits["max_sessions_per_day"], Limit::At(12));
    assert_ne!(cofounder.hash, Products::builtin().get("cofounder").unwrap().hash);
}

#[test]
fn the_hash_is_that_of_the_files_bytes() {
    let products = Products::load(Some(folder(&[("shop.toml", MANIFEST)]).path())).unwrap();
    let again = Products::load(Some(folder(&[("other.toml", MANIFEST)]).path())).unwrap();
    let commented = format!("{MANIFEST}\n# a comment\n");
    let other = Products::load(Some(folder(&[("shop.toml", &commented)]).path())).unwrap();
    let hash = |products: &Products| products.get("shop").unwrap().hash.clone();
    assert_eq!(hash(&products).len(), 64);
    assert_eq!(hash(&products), hash(&again));
    assert_ne!(hash(&products), hash(&other));
}

#[test]
fn two_files_cannot_have_one_slug() {
    let twin = MANIFEST.replace("shop.test", "twin.test");
    let found = complaints(&[("a.toml", MANIFEST), ("b.toml", &twin)]);
    assert_eq!(found, ["b.toml:1: slug `shop` is taken by a.toml:1; give each product its own"]);
}

#[test]
fn a_host_belongs_to_one_product() {
    let greedy = MANIFEST.replace("shop.test", "zerobs.test");
    let found = complaints(&[("shop.toml", &greedy)]);
    assert_eq!(
        found,
        ["shop.toml:3: host `zerobs.test` is taken by products/zerobs.toml:7; a host belongs to one product"]
    );
}

#[test]
fn a_product_names_a_host_once() {
    let twice = MANIFEST.replace(r#"["shop.test"]"#, r#"["shop.test", "shop.test"]"#);
    let found = complaints(&[("shop.toml", &twice)]);
    assert_eq!(found, ["shop.toml:3: host `shop.test` is taken by shop.toml:3; a host belongs to one product"]);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let errors = Products::load(Some(&missing)).unwrap_err();
    assert_eq!(errors.iter().count(), 1);
    assert!(errors.to_string().starts_with(&format!("{}: cannot be read: ", missing.display())), "{errors}");
}

#[test]
fn a_file_that_is_not_text_is_named() {
    let folder = folder(&[]);
    fs::write(folder.path().join("shop.toml"), [0xff, 0xfe, 0x00]).unwrap();
    let errors = Products::load(Some(folder.path())).unwrap_err();
    assert!(errors.to_string().contains("shop.toml: cannot be read: "), "{errors}");
}

#[test]
fn the_mistakes_of_all_files_are_told_at_once() {
    let unknown = MANIFEST.replace("moderation", "moderatoin");
    let dangling = MANIFEST
        .replace(r#"slug = "shop""#, r#"slug = "mall""#)
        .replace(r#"default_plan = "free""#, r#"default_plan = "fee""#);
    let found = complaints(&[("a.toml", &unknown), ("b.toml", &dangling.replace("shop.test", "mall.test"))]);
    let expected = [
        "a.toml:1: missing key `moderation`",
        "a.toml:5: unknown key `moderatoin`",
        "b.toml:7: default_plan `fee` is none of the plans",
    ];
    assert_eq!(found, expected);
}
