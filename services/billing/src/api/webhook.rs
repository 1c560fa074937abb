//! `WebhookService`: events come in.
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_proto::billing::v1::ReceiveStripeEventResponse;
use weft_proto::billing::v1::webhook_service_server::WebhookService;
use weft_proto::google::api::HttpBody;

use crate::domain::event::Event;
use crate::error::Error;
use crate::payments::apply::{Books, Outcome};
use crate::payments::signature::{HEADER, Header};

/// Largest event, in bytes; Stripe's are a few thousand.
const MAX_BODY: usize = 1024 * 1024;

/// Takes Stripe's events in.
pub struct WebhookApi {
    /// Where they are applied.
    pub books: Books,
}

impl WebhookApi {
    /// Believes an event only with its signature; of any other nothing is kept, and its body is not even read.
    async fn receive(&self, product: &str, signature: Option<&str>, body: &[u8]) -> Result<Outcome, Error> {
        let secrets = self.books.payments.webhook_secrets(product);
        if secrets.is_empty() {
            return Err(Error::PaymentsNotConfigured);
        }
        if body.len() > MAX_BODY {
            return Err(Error::Invalid(format!("the event is larger than {MAX_BODY} bytes")));
        }
        let header = signature.and_then(Header::parse);
        let header = header.ok_or_else(|| Error::Invalid(format!("{HEADER} is missing or is not a signature")))?;
        let owners = secrets.into_iter().find(|(secret, _)| header.is_from(secret, body)).map(|(_, owners)| owners);
        let Some(owners) = owners else {
            return Err(Error::Invalid(format!("{HEADER} does not fit the body")));
        };
        if !header.is_fresh(self.books.clock.now_ms()) {
            return Err(Error::Invalid(format!("{HEADER} is too old, send the event again")));
        }
        let event = Event::parse(body).ok_or_else(|| Error::Invalid("the body is not an event".to_owned()))?;
        self.books.receive(&owners, &event).await
    }
}

#[tonic::async_trait]
impl WebhookService for WebhookApi {
    async fn receive_stripe_event(
        &self,
        request: Request<HttpBody>,
    ) -> Result<Response<ReceiveStripeEventResponse>, Status> {
        let caller = Caller::of(&request)?;
        let signature = request.metadata().get(HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let outcome = self.receive(&caller.product, signature.as_deref(), &request.into_inner().data).await;
        let outcome = outcome.inspect_err(|error| {
            metrics::counter!("weft_billing_stripe_refused_total", "reason" => error.reason().as_str()).increment(1);
            tracing::warn!(product = &*caller.product, %error, "an event of Stripe's was not taken");
        })?;
        Ok(Response::new(ReceiveStripeEventResponse { ok: true, outcome: outcome.as_str().to_owned() }))
    }
}
