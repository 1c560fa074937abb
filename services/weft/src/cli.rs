//! The command line.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// One gRPC mesh for AI products.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process; what the environment does not name is embedded
    Up(UpArguments),
    /// Run one service, configured by the environment
    Serve {
        /// Which one
        service: Service,
    },
    /// Bring the databases to this version and end
    Migrate {
        /// Which services' databases; all if none is named
        services: Vec<Service>,
    },
    /// Look at the configuration
    Config {
        /// What to do with it
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Give and take roles of accounts and bring accounts in, in identity's database; also while the mesh runs
    Admin {
        /// What to do
        #[command(subcommand)]
        command: AdminCommand,
    },
    /// Look at the ledger of credits, in billing's database; also while the mesh runs
    Ledger {
        /// What to do with it
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// Look at the audit log, in identity's database; also while the mesh runs
    Audit {
        /// What to do with it
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Replace the keys that stored secrets are sealed under, in a service's database; also while the mesh runs
    Keys {
        /// What to do with them
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Try things out without the outside parties
    Dev {
        /// What to try
        #[command(subcommand)]
        command: DevCommand,
    },
    /// Ask a running edge how every part is; exit status 0 if all is well
    Health {
        /// The edge
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        url: String,
    },
}

/// `weft config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Report every mistake in the environment and the product manifests; exit status 64 if there is one
    Check {
        /// For which services; all if none is named
        services: Vec<Service>,
    },
}

/// `weft dev …`.
#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Sign an event as an outside party would, and send it to a running edge
    Webhook {
        /// Whose
        #[command(subcommand)]
        command: WebhookCommand,
    },
}

/// `weft dev webhook …`.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Of Stripe, signed with STRIPE_WEBHOOK_SECRET
    Stripe(EventArguments),
}

/// Which event.
#[derive(Debug, Args)]
pub struct EventArguments {
    /// `checkout.session.completed`, `invoice.paid`, `customer.subscription.deleted` …
    pub kind: String,
    /// Account id, as `GET /api/v1/auth/me` tells it
    #[arg(long)]
    pub user: String,
    /// Slug of the product
    #[arg(long, default_value = "adiuva")]
    pub product: String,
    /// Id of a credit package or of a price: `credits_500`, `pro_monthly`
    #[arg(long)]
    pub item: String,
    /// Version of the plan that the price is of
    #[arg(long, default_value_t = 1)]
    pub version: i64,
    /// The edge
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
}

/// `weft ledger …`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Recompute it, print what was found as JSON; exit status 1 if anything is wrong
    Verify(VerifyArguments),
}

/// Which ledger.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Slug of the product; all if none is named
    #[arg(long)]
    pub product: Option<String>,
    /// Where `weft up` keeps its databases; not looked at if DATABASE_URL names billing's
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
}

/// `weft audit …`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Look at every entry, print what was found as JSON; exit status 1 if one was changed, moved or is missing
    Verify(AuditArguments),
}

/// Which log.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Slug of the product; all if none is named
    #[arg(long)]
    pub product: Option<String>,
    /// Where `weft up` keeps its databases and secrets; not looked at for what DATABASE_URL and WEFT_IDENTITY_SECRET name
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
}

/// `weft keys …`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Seal with a new key from now on; what is sealed already stays readable and is sealed again by and by
    Rotate(RotateArguments),
}

/// Whose keys.
#[derive(Debug, Args)]
pub struct RotateArguments {
    /// Which service's
    pub service: Sealing,
    /// Where `weft up` keeps its databases and secrets; not looked at for what the environment names
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
}

/// A service that keeps secrets of others.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Sealing {
    /// Tokens of users at other services
    Identity,
    /// Users' keys of model providers
    Orchestrator,
}

impl From<Sealing> for Service {
    fn from(service: Sealing) -> Service {
        match service {
            Sealing::Identity => Service::Identity,
            Sealing::Orchestrator => Service::Orchestrator,
        }
    }
}

/// `weft admin …`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Give an account a role
    Grant(RoleArguments),
    /// Take a role from an account
    Revoke(RoleArguments),
    /// Add accounts from a file, with the password hashes they have elsewhere
    Import(ImportArguments),
}

/// Which accounts.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// One JSON object a line: email, password_hash, and perhaps created_at (ms since 1970) and email_verified
    pub file: PathBuf,
    /// Slug of the product they will belong to
    #[arg(long, default_value = "adiuva")]
    pub product: String,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Where `weft up` keeps its databases; not looked at if DATABASE_URL names identity's
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
}

/// Which role of which account.
#[derive(Debug, Args)]
pub struct RoleArguments {
    /// E-mail address of the account, which exists, or its id
    pub account: String,
    /// Slug of the product it belongs to; may be left out if only one has such an account
    #[arg(long)]
    pub product: Option<String>,
    /// admin, reviewer or support
    #[arg(long, default_value = "admin")]
    pub role: String,
    /// Where `weft up` keeps its databases; not looked at if DATABASE_URL names identity's
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
}

/// `weft up …`.
#[derive(Debug, Args)]
pub struct UpArguments {
    /// Where the edge listens
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Where databases and secrets are kept; created if missing
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
}

/// A service of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Accounts, sessions, tokens
    Identity,
    /// Plans and money
    Billing,
    /// Agents and models
    Orchestrator,
    /// The edge
    Gateway,
}

impl Service {
    /// Every service, those that others need first.
    pub const ALL: [Service; 4] = [Service::Billing, Service::Identity, Service::Orchestrator, Service::Gateway];

    /// Its name in the mesh.
    pub fn name(self) -> &'static str {
        match self {
            Service::Identity => "identity",
            Service::Billing => "billing",
            Service::Orchestrator => "orchestrator",
            Service::Gateway => "gateway",
        }
    }

    /// Where `weft serve` listens unless `WEFT_LISTEN` says otherwise.
    pub fn default_listen(self) -> &'static str {
        match self {
            Service::Identity => "127.0.0.1:9001",
            Service::Billing => "127.0.0.1:9002",
            Service::Orchestrator => "127.0.0.1:9003",
            Service::Gateway => "127.0.0.1:8080",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
