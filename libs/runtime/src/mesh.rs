//! Who a service is, whom it calls and what it runs in the background.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use secrecy::SecretString;
use weft_auth::{Entitlements, Guard, Keys, Revocations, ServiceKey, Verifier, follow};
use weft_core::{Clock, new_id};
use weft_proto::Channel;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;

use crate::client::{Target, connect, near, refuse};
use crate::methods::policies;
use crate::rpc_metrics::{RpcMetrics, Side};
use crate::{MeshConfig, Neighbours, Shutdown, Tasks};

/// Said once a process, however many services it runs.
static SHARED_SECRET: Once = Once::new();

/// One service's place in the mesh. Cheap to clone.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    service: &'static str,
    config: MeshConfig,
    neighbours: Neighbours,
    clock: Clock,
    shutdown: Shutdown,
    tasks: Tasks,
    key: ServiceKey,
    calls: Arc<RpcMetrics>,
    channels: Mutex<HashMap<&'static str, Channel>>,
    verifier: OnceLock<Verifier>,
    entitlements: OnceLock<Entitlements>,
}

impl Mesh {
    /// The place of `service` (`identity`, `billing`, …).
    pub fn new(service: &'static str, config: MeshConfig, clock: Clock, shutdown: Shutdown) -> Mesh {
        Mesh::beside(Neighbours::default(), service, config, clock, shutdown)
    }

    /// The same in a process that runs these services.
    pub fn beside(
        neighbours: Neighbours,
        service: &'static str,
        config: MeshConfig,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Mesh {
        if config.shared_secret().is_some() {
            SHARED_SECRET.call_once(|| {
                tracing::warn!("access tokens are signed with JWT_SECRET: whoever has it can sign in as anybody");
            });
        }
        let key = match &config.weft_service_secret {
            Some(secret) => ServiceKey::new(secret, service),
            None => {
                tracing::warn!(service, "WEFT_SERVICE_SECRET is not set: no other service will let this one in");
                ServiceKey::new(&secret_of_nobody(), service)
            }
        };
        Mesh(Arc::new(Inner {
            service,
            config,
            neighbours,
            clock,
            shutdown,
            tasks: Tasks::new(),
            key,
            calls: Arc::new(RpcMetrics::new(Side::Client, service)),
            channels: Mutex::default(),
            verifier: OnceLock::new(),
            entitlements: OnceLock::new(),
        }))
    }

    /// The service's name.
    pub fn service(&self) -> &'static str {
        self.0.service
    }

    /// What the mesh read from the environment.
    pub fn config(&self) -> &MeshConfig {
        &self.0.config
    }

    /// Where the service takes the time from.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// What tells the service to end.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// The service's background work. [`crate::Server::serve`] drains it.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// The services that run in the same process, this one among them.
    pub fn neighbours(&self) -> &Neighbours {
        &self.0.neighbours
    }

    /// What the service proves itself with.
    pub fn service_key(&self) -> ServiceKey {
        self.0.key.clone()
    }

    /// The channel to another service of the mesh, by name, in this process or at the URL of the configuration.
    /// Every call of it is counted, has a deadline (its own `grpc-timeout`, else the configured one, which then is sent too),
    /// carries a service token and the trace, and is sent a second time if its policy allows and the peer was
    /// away. It connects when first used and again whenever it has to; a peer that is away is UNAVAILABLE
    /// within a second, a neighbour that does not serve yet too.
    ///
    /// Clones share one connection. Needs the runtime.
    pub fn channel(&self, to: &'static str) -> Channel {
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.entry(to).or_insert_with(|| self.connect(to)).clone()
    }

    fn connect(&self, to: &'static str) -> Channel {
        let target = Target { name: to.into(), key: self.service_key(), metrics: Arc::clone(&self.0.calls) };
        if let Some(neighbour) = self.0.neighbours.find(to) {
            return near(target, neighbour, &self.0.config);
        }
        let Some(url) = self.0.config.url_of(to) else {
            tracing::error!(service = self.0.service, to, "there is no service of this name");
            return refuse(to);
        };
        connect(target, url, &self.0.config).unwrap_or_else(|error| {
            tracing::error!(service = self.0.service, to, error = %crate::error::chain(&error), "a service cannot be called");
            refuse(to)
        })
    }

    /// What checks users' tokens, with identity's keys and against its revocations, which are followed in the
    /// background from the first call on. Clones share keys, revocations and what was verified. Needs the runtime.
    pub fn verifier(&self) -> Verifier {
        let verifier = self.0.verifier.get_or_init(|| {
            let identity = KeyServiceClient::new(self.channel("identity"));
            let keys = self.token_keys(identity.clone());
            let verifier = Verifier::new(keys, Revocations::new(), self.0.clock.clone());
            self.0.tasks.spawn("revocations", follow(identity, verifier.clone(), self.0.shutdown.token()));
            verifier
        });
        verifier.clone()
    }

    /// What access tokens are checked with: identity's keys, or the configured secret and nothing else.
    pub fn token_keys(&self, identity: KeyServiceClient<Channel>) -> Keys {
        self.0.config.shared_secret().map_or_else(|| Keys::remote(identity), Keys::shared)
    }

    /// Who may call what of our contracts. Needs the runtime.
    pub fn guard(&self) -> Guard {
        self.guard_with(self.verifier())
    }

    /// The same with a verifier of the service's own: identity has the keys and the revocations itself.
    pub fn guard_with(&self, verifier: Verifier) -> Guard {
        let guard = Guard::new(Arc::clone(policies()), verifier).with_service_key(self.service_key());
        if self.0.service == "billing" {
            return guard;
        }
        guard.with_entitlements(self.entitlements())
    }

    /// What plans allow, asked of billing. Clones share one cache. Needs the runtime.
    pub fn entitlements(&self) -> Entitlements {
        let entitlements = self.0.entitlements.get_or_init(|| {
            Entitlements::new(EntitlementServiceClient::new(self.channel("billing")), self.0.clock.clone())
        });
        entitlements.clone()
    }
}

/// A secret that no other process has; four ids are 296 random bits.
fn secret_of_nobody() -> SecretString {
    SecretString::from([new_id(), new_id(), new_id(), new_id()].concat())
}
