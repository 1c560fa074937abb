//! A service's life: configuration, telemetry, server and channels, health, drain
