//! One SQL text on SQLite and PostgreSQL: migrations, transactions, jobs
