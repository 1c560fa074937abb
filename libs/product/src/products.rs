//! The set of products that a process serves.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::manifest::{self, Place, Read};
use crate::{ManifestError, ManifestErrors, Product};

/// The manifests that every build carries.
const BUILTIN: [(&str, &str); 5] = [
    ("products/adiuva.toml", include_str!("../../../products/adiuva.toml")),
    ("products/async-coder.toml", include_str!("../../../products/async-coder.toml")),
    ("products/cofounder.toml", include_str!("../../../products/cofounder.toml")),
    ("products/companion.toml", include_str!("../../../products/companion.toml")),
    ("products/zerobs.toml", include_str!("../../../products/zerobs.toml")),
];

/// Every product, by slug and by host.
#[derive(Clone, Debug)]
pub struct Products {
    by_slug: BTreeMap<String, Arc<Product>>,
    by_host: BTreeMap<String, Arc<Product>>,
}

impl Products {
    /// The five built-in products.
    pub fn builtin() -> Products {
        #[expect(clippy::expect_used, reason = "these bytes are part of the build, and a test reads them")]
        Products::load(None).expect("the built-in manifests have no mistakes")
    }

    /// The built-in products and those of `dir`: each `*.toml` in it is a manifest that adds a product, or
    /// replaces the built-in one with its slug. Other files are left alone.
    ///
    /// # Errors
    /// Every mistake of every file, and a folder or file that cannot be read.
    pub fn load(dir: Option<&Path>) -> Result<Products, ManifestErrors> {
        let mut errors = Vec::new();
        let builtin = read_all(BUILTIN.map(|(file, text)| (file.to_owned(), text.to_owned())), &mut errors);
        let added = match dir {
            Some(dir) => read_all(files(dir, &mut errors), &mut errors),
            None => Vec::new(),
        };
        let read = replace(builtin, added, &mut errors);
        let by_host = index_hosts(&read, &mut errors);
        if !errors.is_empty() {
            errors.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
            return Err(ManifestErrors(errors));
        }
        let by_slug = read.into_iter().map(|read| (read.product.slug.clone(), read.product)).collect();
        Ok(Products { by_slug, by_host })
    }

    /// The product with this slug.
    pub fn get(&self, slug: &str) -> Option<&Arc<Product>> {
        self.by_slug.get(slug)
    }

    /// The product of a request's host, in any case and with or without a port.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Product>> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        if let Some(product) = self.by_host.get(name) {
            return Some(product);
        }
        self.by_host.get(&name.to_ascii_lowercase())
    }

    /// Every product, by slug.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Product>> {
        self.by_slug.values()
    }
}

/// The text of every manifest in a folder, by file name.
fn files(dir: &Path, errors: &mut Vec<ManifestError>) -> Vec<(String, String)> {
    let mut unreadable = |path: &Path, error: std::io::Error| {
        errors.push(ManifestError {
            file: path.display().to_string(),
            line: None,
            message: format!("cannot be read: {error}"),
        });
    };
    let entries = match fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()) {
        Ok(entries) => entries,
        Err(error) => {
            unreadable(dir, error);
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut texts = Vec::new();
    for path in paths {
        match fs::read_to_string(&path) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(error) => unreadable(&path, error),
        }
    }
    texts
}

/// Reads each text; what has a mistake is left out and reported.
fn read_all(texts: impl IntoIterator<Item = (String, String)>, errors: &mut Vec<ManifestError>) -> Vec<Read> {
    texts.into_iter().filter_map(|(file, text)| manifest::read(&file, &text, errors)).collect()
}

/// The built-in products that the folder does not replace, then those of the folder. Two files of the folder
/// cannot have one slug: which of them counts would be chance.
fn replace(mut builtin: Vec<Read>, added: Vec<Read>, errors: &mut Vec<ManifestError>) -> Vec<Read> {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for read in &added {
        let slug = &read.product.slug;
        if let Some(first) = seen.insert(slug, &read.slug_at) {
            errors.push(read.slug_at.error(format!("slug `{slug}` is taken by {first}; give each product its own")));
        }
    }
    builtin.retain(|read| !seen.contains_key(read.product.slug.as_str()));
    builtin.extend(added);
    builtin
}

/// Host -> product. A host belongs to one product.
fn index_hosts(all: &[Read], errors: &mut Vec<ManifestError>) -> BTreeMap<String, Arc<Product>> {
    let mut hosts: BTreeMap<String, Arc<Product>> = BTreeMap::new();
    let mut places: BTreeMap<&str, &Place> = BTreeMap::new();
    for read in all {
        for (host, place) in read.product.hosts.iter().zip(&read.hosts_at) {
            if let Some(first) = places.insert(host, place) {
                errors.push(place.error(format!("host `{host}` is taken by {first}; a host belongs to one product")));
            }
            hosts.insert(host.clone(), Arc::clone(&read.product));
        }
    }
    hosts
}
