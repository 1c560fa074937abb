//! Migrations: forward only, one text for both databases, embedded in the program.
use sha2::{Digest, Sha256};

use crate::db::Pools;
use crate::{AssertSqlSafe, Db, DbError, Tx, record, sql};

/// One step of a schema. Once applied somewhere, its text is never changed.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Ascending within a service; 1 is the first.
    pub version: i64,
    /// Two or three words for messages.
    pub name: &'static str,
    /// Statements that run on SQLite and PostgreSQL, `include_str!` of `migrations/0001_….sql`. What follows
    /// `--postgresql ` at the beginning of a line is for PostgreSQL alone: to SQLite it is a comment.
    pub sql: &'static str,
}

const POSTGRES_ONLY: &str = "--postgresql ";

record! {
    struct Applied { version: i64, name: String, checksum: String }
}

impl Migration {
    /// What runs on PostgreSQL. A mark that is nearly right would be a comment there too, and never be noticed.
    fn on_postgres(&self) -> Result<String, DbError> {
        let lines = self.sql.lines().map(|line| match line.strip_prefix(POSTGRES_ONLY) {
            None if line.trim_start().starts_with(POSTGRES_ONLY.trim_end()) => Err(DbError::Schema(format!(
                "migration {}: a line is marked {POSTGRES_ONLY:?} otherwise",
                self.version
            ))),
            marked => Ok(marked.unwrap_or(line)),
        });
        Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
    }

    /// SHA-256 of the text in hex; line ends do not count, a checkout may change them.
    fn checksum(&self) -> String {
        let digest = Sha256::digest(self.sql.replace("\r\n", "\n"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Db {
    /// Applies what is pending, all or nothing, and creates the schema on PostgreSQL if it is not there.
    ///
    /// Safe when several processes start at once: one does it, the others wait and find it done. A changed
    /// migration, or a schema that is newer than this program, is [`DbError::Schema`].
    pub async fn migrate(&self, migrations: &[Migration]) -> Result<(), DbError> {
        self.write("migrate", async |tx: Tx| {
            self.lock_schema(&tx).await?;
            sql("CREATE TABLE IF NOT EXISTS weft_migrations (\
                 version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)")
            .run(&tx)
            .await?;
            let applied = applied(&tx).await?;
            for migration in self.pending(migrations, &applied)? {
                match self.pools {
                    Pools::Sqlite { .. } => tx.script(migration.sql.to_owned()).await?,
                    Pools::Postgres(_) => tx.script(migration.on_postgres()?).await?,
                }
                sql("INSERT INTO weft_migrations (version, name, checksum) VALUES ($1, $2, $3)")
                    .bind(migration.version)
                    .bind(migration.name)
                    .bind(migration.checksum())
                    .run(&tx)
                    .await?;
                tracing::info!(schema = self.schema, version = migration.version, name = migration.name, "migrated");
            }
            Ok(())
        })
        .await
    }

    /// That the schema is exactly what `migrations` make; anything else is [`DbError::Schema`]. Changes nothing.
    pub async fn check_migrated(&self, migrations: &[Migration]) -> Result<(), DbError> {
        let begun: bool = sql("SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = 'weft_migrations'")
            .on_postgres("SELECT to_regclass('weft_migrations') IS NOT NULL")
            .one(self)
            .await?;
        let applied = if begun { applied(self).await? } else { Vec::new() };
        match self.pending(migrations, &applied)?.first() {
            None => Ok(()),
            Some(Migration { version, name, .. }) => {
                let schema = self.schema;
                Err(DbError::Schema(format!(
                    "schema {schema} lacks migration {version} ({name}), run weft migrate first"
                )))
            }
        }
    }

    /// Waits until no other process migrates this schema. SQLite's `BEGIN IMMEDIATE` has done so already.
    async fn lock_schema(&self, tx: &Tx) -> Result<(), DbError> {
        let Pools::Postgres(_) = self.pools else { return Ok(()) };
        // The other one may be busy for long, and so may this one.
        sql("SET LOCAL statement_timeout = 0").run(tx).await?;
        // Any number does, if it is always the same for the schema; a lock belongs to one database.
        let key =
            self.schema.bytes().fold(0x7765_6674, |key: i64, byte| key.wrapping_mul(257).wrapping_add(byte.into()));
        sql("SELECT pg_advisory_xact_lock($1)").bind(key).run(tx).await?;
        // Whoever asks for a table waits behind a migration that waits for it: better it fails, and is run again.
        sql("SET LOCAL lock_timeout = '5s'").run(tx).await?;
        // Asked first, because IF NOT EXISTS wants the right to create even when there is nothing to create.
        let there: i64 = sql("SELECT COUNT(*) FROM pg_namespace WHERE nspname = $1").bind(self.schema).one(tx).await?;
        if there == 0 {
            sql(AssertSqlSafe(format!("CREATE SCHEMA \"{}\"", self.schema))).run(tx).await?;
        }
        Ok(())
    }

    /// What is still to be applied, after a look at whether the rest fits.
    fn pending<'a>(&self, migrations: &'a [Migration], applied: &[Applied]) -> Result<&'a [Migration], DbError> {
        let refused = |text: String| Err(DbError::Schema(format!("schema {}: {text}", self.schema)));
        if !migrations.is_sorted_by(|a, b| a.version < b.version) {
            return refused("the migrations of this program are not in ascending order".into());
        }
        if let Some(newer) = applied.get(migrations.len()) {
            let (version, name) = (newer.version, &newer.name);
            return refused(format!(
                "it has migration {version} ({name}), this program is older, deploy the newer one"
            ));
        }
        for (migration, applied) in migrations.iter().zip(applied) {
            if migration.version != applied.version {
                let (ours, theirs) = (migration.version, applied.version);
                return refused(format!(
                    "migration {theirs} is applied where this program has {ours}, add new migrations at the end"
                ));
            }
            if migration.checksum() != applied.checksum {
                let (version, name) = (migration.version, migration.name);
                return refused(format!(
                    "migration {version} ({name}) was changed after it was applied, put its text back and add a new one"
                ));
            }
        }
        Ok(migrations.get(applied.len()..).unwrap_or_default())
    }
}

async fn applied(on: &impl crate::On) -> Result<Vec<Applied>, DbError> {
    sql("SELECT version, name, checksum FROM weft_migrations ORDER BY version").all(on).await
}
