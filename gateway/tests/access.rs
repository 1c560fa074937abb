//! Who is let in, for which product, from which page, how often.
use http::Method;
use serde_json::json;

use crate::harness::{Answer, Edge, LIMITED, frame};

#[tokio::test]
async fn an_operators_rpc_needs_a_signed_in_user_unless_it_says_otherwise() {
    let edge = Edge::start().await;
    let nobody = edge.call(Method::GET, "/v1/orders/o1", &[], "").await;
    assert_eq!((nobody.status, nobody.code().as_str()), (401, "unauthenticated"));
    let forged = edge.call(Method::GET, "/v1/orders/o1", &[("authorization", "Bearer a.b.c")], "").await;
    assert_eq!((forged.status, forged.code().as_str()), (401, "unauthenticated"));
    assert_eq!(edge.get("/v1/orders/o1").await.status, 200);
    assert_eq!(edge.call(Method::GET, "/v1/hello", &[], "").await.json(), json!({"number": 1}));
    let web = edge
        .call(Method::POST, "/shop.v1.ShopService/Echo", &[("content-type", "application/grpc-web")], frame(&[]))
        .await;
    assert_eq!((web.status, web.header("grpc-status")), (200, "16"));
}

#[tokio::test]
async fn an_rpc_for_services_cannot_be_reached_from_outside() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let user = edge.call(Method::GET, "/v1/inside", &[("authorization", &bearer)], "").await;
    assert_eq!((user.status, user.code().as_str()), (403, "permission_denied"));
    let key = weft_auth::ServiceKey::new(&"a secret of at least thirty-two bytes".to_owned().into(), "gateway");
    for audience in ["gateway", "shop"] {
        let service = edge.call(Method::GET, "/v1/inside", &[("x-weft-service-token", &key.mint(audience))], "").await;
        assert_eq!(service.status, 401, "{audience}");
    }
    assert!(edge.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn identity_from_outside_does_not_get_in() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let forged = [
        ("authorization", bearer.as_str()),
        ("x-weft-service-token", "t"),
        ("x-user-id", "admin"),
        ("x-tier", "vip"),
        ("grpc-metadata-x-user-id", "admin"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-user", "admin"),
        ("cookie", "a=b"),
        ("connection", "keep-alive, x-hop"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("idempotency-key", "k1"),
        ("x-request-id", "r.1-a_b"),
    ];
    let answer = edge.call(Method::GET, "/v1/orders/o1", &forged, "").await;
    assert_eq!((answer.status, answer.header("x-request-id")), (200, "r.1-a_b"));
    let seen = edge.seen.lock().unwrap();
    let headers = &seen[0].1;
    for gone in [
        "x-weft-service-token",
        "x-user-id",
        "x-tier",
        "grpc-metadata-x-user-id",
        "x-forwarded-user",
        "cookie",
        "connection",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-weft-product", "adiuva"),
        ("x-request-id", "r.1-a_b"),
        ("idempotency-key", "k1"),
        ("grpc-timeout", "30000m"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(headers.contains_key("traceparent") && headers["authorization"].to_str().unwrap().starts_with("Bearer "));
}

#[tokio::test]
async fn a_strange_request_id_is_replaced_and_a_deadline_is_passed_on() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    for (asked, sent) in [("500m", "500m"), ("2S", "2000m"), ("99999999H", "600000m"), ("nonsense", "30000m")] {
        let answer = edge
            .call(
                Method::GET,
                "/v1/orders/o1",
                &[("authorization", &bearer), ("grpc-timeout", asked), ("x-request-id", "a b")],
                "",
            )
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-request-id").len(), 36);
        assert_eq!(edge.seen.lock().unwrap().last().unwrap().1["grpc-timeout"], sent);
    }
}

#[tokio::test]
async fn the_product_is_named_by_header_then_host_then_default_and_must_be_the_tokens() {
    let edge = Edge::start().await;
    let token = |product: &str| format!("Bearer {}", edge.token_of("ana", product));
    for (headers, product, status, code) in [
        (vec![], "adiuva", 200, ""),
        (vec![("host", "companion.test:8080")], "companion", 200, ""),
        (vec![("host", "COMPANION.test")], "companion", 200, ""),
        (vec![("host", "companion.test"), ("x-weft-product", "zerobs")], "zerobs", 200, ""),
        (vec![("host", "companion.test")], "adiuva", 403, "product_mismatch"),
        (vec![("x-weft-product", "companion")], "adiuva", 403, "product_mismatch"),
        (vec![("x-weft-product", "nope")], "adiuva", 400, "invalid_argument"),
    ] {
        let bearer = token(product);
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend(headers.clone());
        let answer = edge.call(Method::GET, "/v1/orders/o1", &all, "").await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        match code {
            "" => assert_eq!(edge.seen.lock().unwrap().last().unwrap().1["x-weft-product"], product),
            code => assert_eq!(answer.code(), code, "{headers:?}"),
        }
    }
}

#[tokio::test]
async fn a_user_over_the_plans_rate_is_told_when_to_come_back() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("limited"));
    let call = async || edge.call(Method::GET, "/v1/orders/o1", &[("authorization", &bearer)], "").await;
    for _ in 0..LIMITED {
        assert_eq!(call().await.status, 200);
    }
    let refused = call().await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    // One every twelve seconds, and hardly any of the first has passed.
    assert_eq!(refused.header("retry-after"), "12");
    // Others have their own allowance, and health has none.
    assert_eq!(edge.get("/v1/orders/o1").await.status, 200);
    for _ in 0..20 {
        assert_eq!(edge.call(Method::GET, "/health", &[("authorization", &bearer)], "").await.status, 200);
    }
}

#[tokio::test]
async fn strangers_are_limited_by_their_address() {
    let edge = Edge::with(|config| {
        config.weft_edge_anonymous_per_minute = 3;
        config.weft_edge_trusted_proxies = 1;
    })
    .await;
    let call = async |from: &str| edge.call(Method::GET, "/v1/hello", &[("x-forwarded-for", from)], "").await.status;
    for _ in 0..3 {
        assert_eq!(call("192.0.2.1").await, 200);
    }
    assert_eq!(call("192.0.2.1").await, 429);
    // What stands further left was written by the client itself.
    assert_eq!(call("192.0.2.9, 192.0.2.1").await, 429);
    assert_eq!(call("192.0.2.2").await, 200);
}

#[tokio::test]
async fn a_token_opens_no_second_allowance_where_anybody_may_call() {
    let edge = Edge::with(|config| config.weft_edge_anonymous_per_minute = 3).await;
    let call = async |user: &str| {
        let bearer = format!("Bearer {}", edge.token(user));
        edge.call(Method::GET, "/v1/hello", &[("authorization", &bearer)], "").await.status
    };
    for user in ["ana", "ben", "eva"] {
        assert_eq!(call(user).await, 200);
    }
    assert_eq!(call("ida").await, 429);
}

type Headers<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn whoever_is_refused_too_often_is_told_so_instead() {
    let forged = [("authorization", "Bearer a.b.c")];
    let kind = [("content-type", "application/grpc-web")];
    let refusals: [(Method, &str, Headers, &str); 6] = [
        (Method::GET, "/v1/orders/o1", &forged, "unauthenticated"),
        (Method::GET, "/v1/orders/o1", &[("x-weft-product", "nope")], "invalid_argument"),
        (Method::GET, "/v1/nope", &[], "not_found"),
        (Method::PATCH, "/v1/hello", &[], "method_not_allowed"),
        (Method::POST, "/shop.v1.ShopService/Nope", &kind, "12"),
        (Method::GET, "/shop.v1.ShopService/Echo", &kind, "method_not_allowed"),
    ];
    for (method, path, headers, why) in refusals {
        let edge = Edge::with(|config| config.weft_edge_anonymous_per_minute = 3).await;
        let call = async || edge.call(method.clone(), path, headers, "").await;
        let told = |answer: &Answer| match answer.header("grpc-status") {
            "" => answer.code(),
            status => status.to_owned(),
        };
        for _ in 0..3 {
            assert_eq!(told(&call().await), why, "{path}");
        }
        assert!(["rate_limited", "8"].contains(&told(&call().await).as_str()), "{path}");
        // Whoever is signed in is not kept out by it, and a probe neither.
        assert_eq!(edge.get("/v1/orders/o1").await.status, 200);
        for (probe, status) in [("/health", 200), ("/api/v1/health", 200), ("/health/detailed", 429), ("/metrics", 429)]
        {
            assert_eq!(edge.call(Method::GET, probe, &[], "").await.status, status, "{probe}");
        }
    }
}

#[tokio::test]
async fn a_header_that_could_be_read_in_two_ways_is_refused() {
    let edge = Edge::start().await;
    let (ana, ben) = (format!("Bearer {}", edge.token("ana")), format!("Bearer {}", edge.token("ben")));
    let signed = ("authorization", ana.as_str());
    for twice in [
        vec![signed, ("authorization", &ben)],
        vec![signed, signed],
        vec![signed, ("x-weft-product", "adiuva"), ("x-weft-product", "zerobs")],
        vec![signed, ("x-key-bin", "***")],
    ] {
        let answer = edge.call(Method::GET, "/v1/orders/o1", &twice, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{twice:?}");
    }
    assert!(edge.seen.lock().unwrap().is_empty());
    assert_eq!(edge.call(Method::GET, "/v1/orders/o1", &[signed, ("x-key-bin", "AAE")], "").await.status, 200);
}

#[tokio::test]
async fn only_allowed_pages_may_call() {
    let edge = Edge::start().await;
    for (origin, allowed) in [
        ("app://adiuva", true),
        ("http://localhost:3000", true),
        ("null", false),
        ("https://evil.example", false),
        ("http://localhost.evil", false),
        ("http://localhost:3000.evil.example", false),
    ] {
        let asks = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,x-grpc-web"),
        ];
        let preflight = edge.call(Method::OPTIONS, "/v1/echo", &asks, "").await;
        let answer = edge.call(Method::GET, "/v1/hello", &[("origin", origin)], "").await;
        let error = edge.call(Method::GET, "/v1/nope", &[("origin", origin)], "").await;
        let echoed = if allowed { origin } else { "" };
        for (answer, status) in [(&preflight, if allowed { 204 } else { 403 }), (&answer, 200), (&error, 404)] {
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, echoed), "{origin}");
        }
        assert_eq!(preflight.header("access-control-allow-headers").contains("x-grpc-web"), allowed);
        assert_eq!(answer.header("access-control-expose-headers").contains("grpc-status"), allowed);
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
}
