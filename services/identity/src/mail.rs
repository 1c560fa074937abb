//! Mail: to a server, or as files where none is configured.
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use lettre::address::AddressError;
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox};
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWriteExt;
use weft_core::new_id;

/// How long a server may take for one mail, from the connection on.
const SEND_TIMEOUT: Duration = Duration::from_secs(25);

/// Longest line of a mail in bytes (RFC 5322, 2.1.1).
const LINE_BYTES: usize = 998;

/// A mail of plain text. It holds secrets: it is never logged.
pub struct Mail {
    /// Whom it is for.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// What it says.
    pub text: String,
    /// When it was written, in ms since 1970.
    pub at: i64,
}

/// Why a mail did not go out. No text of the server's is kept: it may quote the address.
#[derive(Debug)]
pub enum MailError {
    /// It never will: the address, or the server's last word.
    Never(String),
    /// It may later.
    Later(String),
}

impl fmt::Display for MailError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (MailError::Never(why) | MailError::Later(why)) = self;
        to.write_str(why)
    }
}

/// Where mail goes.
pub struct Mailer {
    from: Mailbox,
    way: Way,
}

enum Way {
    Server(AsyncSmtpTransport<Tokio1Executor>),
    Folder(PathBuf),
}

/// A sender as it is written in a mail, `Weft <no-reply@example.com>`.
pub fn sender(text: &str) -> Result<Mailbox, AddressError> {
    text.parse()
}

/// A mail server, `smtp://user:password@host:port?tls=required` or `smtps://…`.
pub fn server(url: &SecretString) -> Result<AsyncSmtpTransport<Tokio1Executor>, smtp::Error> {
    let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())?;
    Ok(builder.timeout(Some(SEND_TIMEOUT)).build())
}

/// Whether a mail server that [`server`] takes is talked to with TLS or not at all.
pub fn has_tls(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    url.starts_with("smtps:") || query.split('&').any(|pair| pair == "tls=required")
}

impl Mailer {
    /// To `server`, or as files into `folder`, which is made with the first.
    pub fn new(from: Mailbox, server: Option<AsyncSmtpTransport<Tokio1Executor>>, folder: PathBuf) -> Mailer {
        Mailer { from, way: server.map_or(Way::Folder(folder), Way::Server) }
    }

    /// Hands a mail over: the server has taken it, or it is in a file.
    pub async fn send(&self, mail: Mail) -> Result<(), MailError> {
        let message = self.message(mail).map_err(|error| MailError::Never(error.to_string()))?;
        match &self.way {
            Way::Server(server) => match tokio::time::timeout(SEND_TIMEOUT, server.send(message)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(refused(&error)),
                Err(_) => Err(MailError::Later("the mail server did not answer in time".to_owned())),
            },
            Way::Folder(folder) => {
                let path = folder.join(format!("{}.eml", new_id()));
                write(&path, &message.formatted()).await.map_err(|error| {
                    MailError::Later(format!("cannot write into the mail folder {}: {error}", folder.display()))
                })?;
                tracing::info!(file = %path.display(), "a mail was written to a file, set SMTP_URL to have mail sent");
                Ok(())
            }
        }
    }

    fn message(&self, mail: Mail) -> Result<Message, Box<dyn std::error::Error + Send + Sync>> {
        let at = UNIX_EPOCH + Duration::from_millis(mail.at.max(0).unsigned_abs());
        let to = Mailbox::new(None, mail.to.parse().map_err(|_| "the address cannot be sent to")?);
        let builder = Message::builder().from(self.from.clone()).to(to).subject(mail.subject).date(at).message_id(None);
        Ok(builder.header(ContentType::TEXT_PLAIN).body(body(mail.text))?)
    }
}

/// The text as it is wherever that is allowed: quoted-printable breaks a link into lines and escapes its `=`, which who
/// reads the file would have to undo.
fn body(text: String) -> Body {
    let plain = |byte: u8| matches!(byte, b'\n' | b' '..=b'~');
    if text.bytes().all(plain) && text.lines().all(|line| line.len() <= LINE_BYTES) {
        Body::dangerous_pre_encoded(text.replace('\n', "\r\n").into_bytes(), ContentTransferEncoding::SevenBit)
    } else {
        Body::new(text)
    }
}

/// Only the number of what the server said.
fn refused(error: &smtp::Error) -> MailError {
    match error.status() {
        Some(code) if error.is_permanent() => MailError::Never(format!("the mail server refused it with {code}")),
        Some(code) => MailError::Later(format!("the mail server put it off with {code}")),
        None if error.is_tls() => MailError::Later("the mail server's TLS is not trusted".to_owned()),
        None => MailError::Later("the mail server cannot be reached".to_owned()),
    }
}

/// Written beside and renamed, so that nobody reads half a mail; for its owner only, because it may hold a link.
async fn write(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let beside = path.with_extension("new");
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).await?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    tokio::fs::rename(&beside, path).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_mail_in_a_file_is_its_owners_alone_and_no_header_can_be_added_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let mailer = Mailer::new(sender("Weft <no-reply@example.com>").unwrap(), None, folder.path().join("mail"));
        let mail = Mail {
            to: "ana@example.com".into(),
            subject: "Hello\r\nBcc: eve@example.com".into(),
            text: "Text".into(),
            at: 0,
        };
        mailer.send(mail).await.unwrap();
        let [file] = &std::fs::read_dir(folder.path().join("mail")).unwrap().collect::<Vec<_>>()[..] else { panic!() };
        let path = file.as_ref().unwrap().path();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.lines().any(|line| line.to_lowercase().starts_with("bcc:")), "{text}");
        assert!(text.contains("Date: Thu, 01 Jan 1970 00:00:00"), "{text}");
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_sent_to_is_no_reason_to_try_again() {
        let mailer = Mailer::new(sender("no-reply@example.com").unwrap(), None, "/nowhere".into());
        let mail = Mail { to: "a@b@c".into(), subject: String::new(), text: String::new(), at: 0 };
        assert!(matches!(mailer.send(mail).await, Err(MailError::Never(_))));
    }
}
