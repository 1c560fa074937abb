//! The secrets of an embedded mesh: made once, kept in the data folder, readable by their owner only.
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::exit::Failure;

/// The secret in `folder/name`; made, and written with mode 0600, if there is none.
pub fn secret(folder: &Path, name: &str) -> Result<String, Failure> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(text.trim_end().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::cannot_create(format!("cannot read {}: {error}", path.display()))),
    }
    let mut bytes = [0_u8; 24];
    getrandom::fill(&mut bytes).map_err(Failure::cannot_create)?;
    let text = URL_SAFE_NO_PAD.encode(bytes);
    write_once(&path, &text)
        .map_err(|error| Failure::cannot_create(format!("cannot write {}: {error}", path.display())))?;
    Ok(text)
}

/// Written beside and renamed, so that a crash never leaves half a secret.
fn write_once(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = secret(folder.path(), "key").unwrap();
        assert_eq!(secret(folder.path(), "key").unwrap(), first);
        let mode = fs::metadata(folder.path().join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(secret(folder.path(), "other").unwrap(), first);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_one_sentence() {
        let failure = secret(Path::new("/proc/nowhere"), "key").unwrap_err();
        assert!(format!("{failure:?}").contains("cannot write /proc/nowhere/key"), "{failure:?}");
    }
}
