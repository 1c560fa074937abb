//! The one binary: everything in one process (`weft up`), or one service of the mesh (`weft serve billing`).
mod admin;
mod audit;
mod cli;
mod config;
mod demo;
mod dev;
mod exit;
mod health;
mod keys;
mod ledger;
mod migrate;
mod secrets;
mod serve;
mod setup;
mod test_clock;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{AuditCommand, Cli, Command, ConfigCommand, DevCommand, KeysCommand, LedgerCommand, WebhookCommand};
use crate::exit::Failure;

/// A call is many small pieces that are made and given back on different threads; the system's allocator takes a tenth
/// more of the CPU for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Only one provider is compiled in; a second installation would be the same one.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let environment = weft_runtime::config::environment();
    match cli.command {
        Command::Config { command: ConfigCommand::Check { services } } => config::check(&environment, &services),
        Command::Up(arguments) => serve::block_on(&environment, up::up(&environment, arguments)),
        Command::Serve { service } => serve::block_on(&environment, serve::serve(&environment, service)),
        Command::Migrate { services } => serve::block_on(&environment, migrate::migrate(&environment, &services)),
        Command::Admin { command } => serve::block_on(&environment, admin::admin(&environment, &command)),
        Command::Ledger { command: LedgerCommand::Verify(arguments) } => {
            serve::block_on(&environment, ledger::verify(&environment, &arguments))
        }
        Command::Audit { command: AuditCommand::Verify(arguments) } => {
            serve::block_on(&environment, audit::verify(&environment, &arguments))
        }
        Command::Keys { command: KeysCommand::Rotate(arguments) } => {
            serve::block_on(&environment, keys::rotate(&environment, &arguments))
        }
        Command::Dev { command: DevCommand::Webhook { command: WebhookCommand::Stripe(arguments) } } => {
            serve::block_on(&environment, dev::stripe(&environment, &arguments))
        }
        Command::Health { url } => serve::block_on(&environment, health::health(&url)),
    }
}
