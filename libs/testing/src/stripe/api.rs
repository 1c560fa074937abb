//! Which path does what.
use serde_json::{Value, json};

use super::form::Params;
use super::state::{Refusal, Shape, State};
use super::{catalog, checkout, connect, money, subscriptions};

/// What could be expanded until basil.
const ONCE_EXPANDABLE: [&str; 5] =
    ["invoice.payment_intent", "invoice.charge", "invoice.subscription", "charge.invoice", "payment_intent.invoice"];

/// A request without its wrapping.
pub(super) struct Request<'a> {
    pub method: &'a str,
    /// From `/v1/` on.
    pub path: &'a str,
    pub params: Params,
}

/// Does what is asked, and gives the answer's body.
pub(super) fn serve(state: &mut State, request: &Request) -> Result<Value, Refusal> {
    let segments: Vec<&str> = request.path.trim_matches('/').split('/').skip(1).collect();
    let expand = request.params.texts("expand");
    if state.shape == Shape::Current {
        expandable(&expand)?;
    }
    let answer = match request.method {
        "GET" => read(state, request, &segments),
        "POST" => write(state, request, &segments),
        "DELETE" => match segments[..] {
            ["subscriptions", id] => subscriptions::subscription_cancel(state, id),
            ["customers", id] => catalog::customer_delete(state, id),
            _ => Err(unknown(request)),
        },
        _ => Err(unknown(request)),
    }?;
    Ok(state.answer(answer, &expand))
}

fn expandable(paths: &[String]) -> Result<(), Refusal> {
    let Some(path) = paths.iter().find(|path| ONCE_EXPANDABLE.iter().any(|gone| path.ends_with(gone))) else {
        return Ok(());
    };
    Err(Refusal::invalid(400, &format!("This property cannot be expanded ({path}).")))
}

fn unknown(request: &Request) -> Refusal {
    let (method, path) = (request.method, request.path);
    let message = format!("Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs.");
    Refusal { code: Some("resource_missing"), ..Refusal::invalid(404, &message) }
}

fn write(state: &mut State, request: &Request, segments: &[&str]) -> Result<Value, Refusal> {
    let params = &request.params;
    match *segments {
        ["customers"] => catalog::customer_create(state, params),
        ["products"] => catalog::product_create(state, params),
        ["prices"] => catalog::price_create(state, params),
        ["checkout", "sessions"] => checkout::session_create(state, params),
        ["checkout", "sessions", id, "expire"] => checkout::session_expire(state, id),
        ["billing_portal", "sessions"] => portal_session(state, params),
        ["subscriptions"] => subscriptions::subscription_post(state, params),
        ["subscriptions", id] => subscriptions::subscription_update(state, id, params),
        ["payment_intents"] => money::intent_post(state, params),
        ["payment_intents", id, "cancel"] => money::intent_cancel(state, id),
        ["payment_intents", id, "confirm"] => money::intent_confirm(state, id, params),
        ["refunds"] => money::refund_post(state, params),
        ["accounts"] => connect::account_create(state, params),
        ["account_links"] => connect::account_link(state, params),
        ["transfers"] => connect::transfer_create(state, params),
        ["transfers", id, "reversals"] => connect::reversal_create(state, id, params),
        [kind @ ("customers" | "payment_intents" | "charges" | "transfers" | "accounts" | "products"), id] => {
            money::metadata_post(state, &kind[..kind.len() - 1], id, params)
        }
        _ => Err(unknown(request)),
    }
}

fn read(state: &State, request: &Request, segments: &[&str]) -> Result<Value, Refusal> {
    match *segments {
        ["checkout", "sessions", id, "line_items"] => Ok(state.find("checkout.session", id)?["_line_items"].clone()),
        ["checkout", "sessions", id] => state.find("checkout.session", id).cloned(),
        ["transfers", id, "reversals"] => Ok(state.find("transfer", id)?["reversals"].clone()),
        ["customers", id, "payment_methods"] => saved_methods(state, id, request.path),
        ["transfers", id, "reversals", reversal] => {
            let found = state.find("transfer_reversal", reversal)?;
            let of_this = found["transfer"] == id;
            of_this.then(|| found.clone()).ok_or_else(|| Refusal::no_such("transfer_reversal", reversal, 404))
        }
        [
            kind @ ("customers" | "products" | "prices" | "subscriptions" | "invoices" | "payment_intents" | "charges"
            | "refunds" | "events" | "accounts" | "transfers" | "disputes" | "invoice_payments"),
            id,
        ] => state.find(&kind[..kind.len() - 1], id).cloned(),
        _ => list(state, request, segments),
    }
}

/// What a customer has paid a subscription with is saved.
fn saved_methods(state: &State, customer: &str, url: &str) -> Result<Value, Refusal> {
    state.find("customer", customer)?;
    let of_customer = state.all("sub").filter(|subscription| subscription["customer"] == customer);
    let saved =
        of_customer.map(|subscription| &subscription["default_payment_method"]).find(|method| !method.is_null());
    let saved: Vec<Value> = saved
        .map(|id| {
            json!({
                "id": id, "object": "payment_method", "type": "card", "customer": customer, "created": state.now(),
                "livemode": false, "metadata": {}, "billing_details": {},
            })
        })
        .into_iter()
        .collect();
    Ok(json!({"object": "list", "data": saved, "has_more": false, "url": url}))
}

fn list(state: &State, request: &Request, segments: &[&str]) -> Result<Value, Refusal> {
    let (params, url) = (&request.params, request.path);
    let prefix = match *segments {
        ["customers"] => "cus",
        ["checkout", "sessions"] => "cs_test",
        ["subscriptions"] => "sub",
        ["invoices"] => "in",
        ["invoice_payments"] => "inpay",
        ["payment_intents"] => "pi",
        ["charges"] => "ch",
        ["refunds"] => "re",
        ["disputes"] => "du",
        ["events"] => "evt",
        ["transfers"] => "tr",
        ["accounts"] => "acct",
        _ => return Err(unknown(request)),
    };
    let payment = params.text("payment.payment_intent");
    let created = Created::of(params)?;
    state.page((prefix, url), params, |object| {
        let fields = [
            "customer",
            "subscription",
            "payment_intent",
            "charge",
            "destination",
            "transfer_group",
            "email",
            "invoice",
        ];
        fields.iter().all(|name| params.text(name).is_none_or(|wanted| object[*name] == wanted))
            && payment.is_none_or(|wanted| object["payment"]["payment_intent"] == wanted)
            && status(params, object)
            && kinds(params, object)
            && created.has(object)
    })
}

/// Subscriptions that ended are listed only when asked for.
fn status(params: &Params, object: &Value) -> bool {
    let ended = object["object"] == "subscription" && object["status"] == "canceled";
    match params.text("status") {
        Some("all") => true,
        Some("ended") => ended,
        Some(wanted) => object["status"] == wanted,
        None => !ended,
    }
}

/// `type` and `types[]` of events.
fn kinds(params: &Params, object: &Value) -> bool {
    if object["object"] != "event" {
        return true;
    }
    let types = params.texts("types");
    let listed = types.is_empty() || types.iter().any(|kind| object["type"] == **kind);
    listed && params.text("type").is_none_or(|kind| kind == "all" || object["type"] == kind)
}

/// The bounds of `created`, in seconds, both included.
struct Created {
    from: i64,
    to: i64,
}

impl Created {
    fn of(params: &Params) -> Result<Created, Refusal> {
        if params.text("created").is_some() {
            let exactly = params.need_number("created")?;
            return Ok(Created { from: exactly, to: exactly });
        }
        let bound =
            |name: &str, by: i64| Ok(params.number(&format!("created.{name}"))?.map(|at| at.saturating_add(by)));
        let from = bound("gte", 0)?.max(bound("gt", 1)?).unwrap_or(i64::MIN);
        let to = match (bound("lte", 0)?, bound("lt", -1)?) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other).unwrap_or(i64::MAX),
        };
        Ok(Created { from, to })
    }

    fn has(&self, object: &Value) -> bool {
        let at = object["created"].as_i64().unwrap_or_default();
        (self.from..=self.to).contains(&at)
    }
}

fn portal_session(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let customer = params.need("customer")?;
    state.referred("customer", customer)?;
    let (customer, id) = (customer.to_owned(), state.id("bps"));
    Ok(json!({
        "id": id, "object": "billing_portal.session", "configuration": "bpc_stub", "created": state.now(),
        "customer": customer, "customer_account": null, "flow": null, "livemode": false, "locale": null,
        "on_behalf_of": null,
        "return_url": params.json("return_url"), "url": format!("https://billing.stripe.com/p/session/{id}"),
    }))
}
