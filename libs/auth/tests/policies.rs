//! Reading policies from descriptors.
use std::path::Path;

use prost_reflect::DescriptorPool;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};
use weft_auth::{Access, Policies, Policy, PolicyError, RateClass};

struct Source(String);

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "shop.proto" { File::from_source(name, &self.0) } else { Err(protox::Error::file_not_found(name)) }
    }
}

/// The descriptors of a service `shop.v1.Shop` with these RPCs, each as its name and the text of its body.
pub fn shop(rpcs: &[(&str, &str)]) -> DescriptorPool {
    let rpcs: String =
        rpcs.iter().map(|(name, body)| format!("rpc {name}(Empty) returns (Empty) {{ {body} }}\n")).collect();
    let source = format!(
        "syntax = \"proto3\"; package shop.v1; import \"weft/options/v1/policy.proto\";
        message Empty {{}} service Shop {{ {rpcs} }}"
    );
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut resolver = ChainFileResolver::new();
    resolver.add(Source(source));
    resolver.add(IncludeFileResolver::new(contracts));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("shop.proto").unwrap();
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

/// The body of an RPC with this policy.
pub fn policy(text: &str) -> String {
    format!("option (weft.options.v1.policy) = {{ {text} }};")
}

fn problem(text: &str) -> String {
    Policies::of(&shop(&[("Buy", &policy(text))])).unwrap_err().to_string()
}

#[test]
fn every_rpc_of_ours_has_a_policy() {
    let policies = Policies::of(weft_proto::descriptors()).unwrap();
    let methods: usize = weft_proto::descriptors().services().map(|service| service.methods().len()).sum();
    assert_eq!(policies.paths().count(), methods);

    let jwks = policies.get("/weft.identity.v1.KeyService/GetJwks").unwrap();
    assert_eq!((jwks.access, jwks.retry_safe), (Access::Public, true));
    let login = policies.get("/weft.identity.v1.AuthService/Login").unwrap();
    assert_eq!((login.access, login.retry_safe, login.rate_class), (Access::Public, false, RateClass::Login));
    let entitlements = policies.get("/weft.billing.v1.EntitlementService/GetEntitlements").unwrap();
    assert_eq!(entitlements.access, Access::Service);
    assert!(entitlements.callers.iter().any(|name| name == "orchestrator"));
    assert!(policies.get("/weft.identity.v1.KeyService/Nothing").is_none());
}

#[test]
fn a_policy_is_read_whole() {
    let pool = shop(&[
        ("Look", &policy("access: ACCESS_PUBLIC retry: RETRY_SAFE")),
        ("Buy", &policy("access: ACCESS_USER feature: \"shopping\"")),
        ("Ask", &policy("access: ACCESS_USER scope: \"chat\"")),
        ("Write", &policy("access: ACCESS_USER long: true")),
        ("Close", &policy("access: ACCESS_ADMIN")),
        ("Enter", &policy("access: ACCESS_PUBLIC rate_class: RATE_CLASS_LOGIN")),
        ("Event", &policy("access: ACCESS_PUBLIC rate_class: RATE_CLASS_WEBHOOK")),
        ("Count", &policy("access: ACCESS_SERVICE callers: [\"billing\", \"storage\"]")),
    ]);
    let policies = Policies::of(&pool).unwrap();
    let plain = |access| Policy { access, ..Policy::user() };
    let expected = [
        ("Look", Policy { retry_safe: true, ..plain(Access::Public) }),
        ("Buy", Policy { feature: Some("shopping".into()), ..plain(Access::User) }),
        ("Ask", Policy { scope: Some("chat".into()), ..plain(Access::User) }),
        ("Write", Policy { is_long: true, ..plain(Access::User) }),
        ("Close", plain(Access::Admin)),
        ("Enter", Policy { rate_class: RateClass::Login, ..plain(Access::Public) }),
        ("Event", Policy { rate_class: RateClass::Webhook, ..plain(Access::Public) }),
        ("Count", Policy { callers: vec!["billing".into(), "storage".into()], ..plain(Access::Service) }),
    ];
    for (name, policy) in expected {
        assert_eq!(policies.get(&format!("/shop.v1.Shop/{name}")), Some(&policy), "{name}");
    }
}

#[test]
fn an_rpc_without_a_policy_is_an_error_that_names_it() {
    let pool = shop(&[("Look", &policy("access: ACCESS_PUBLIC")), ("Buy", "")]);
    let error = Policies::of(&pool).unwrap_err();
    assert_eq!(error, PolicyError::Missing { rpc: "shop.v1.Shop/Buy".into() });
    assert!(error.to_string().contains("shop.v1.Shop/Buy"));
}

#[test]
fn a_policy_that_cannot_be_meant_is_an_error() {
    assert!(problem("").contains("shop.v1.Shop/Buy is wrong: it states no access"));
    assert!(problem("retry: RETRY_SAFE").contains("states no access"));
    assert!(problem("access: ACCESS_SERVICE").contains("nobody could call it"));
    assert!(problem("access: ACCESS_USER callers: [\"billing\"]").contains("callers needs ACCESS_SERVICE"));
    let service = "access: ACCESS_SERVICE callers: [\"billing\"] rate_class: RATE_CLASS_WEBHOOK";
    assert!(problem(service).contains("rate_class is for calls from outside"));
    for access in ["ACCESS_PUBLIC", "ACCESS_ADMIN", "ACCESS_SERVICE callers: [\"billing\"]"] {
        assert!(problem(&format!("access: {access} scope: \"chat\"")).contains("scope needs ACCESS_USER"), "{access}");
    }
    assert!(problem("access: ACCESS_PUBLIC feature: \"shopping\"").contains("feature needs ACCESS_USER"));
    assert!(
        problem("access: ACCESS_SERVICE callers: [\"billing\"] feature: \"x\"").contains("feature needs ACCESS_USER")
    );
}

#[test]
fn contracts_of_others_get_a_default_where_they_say_nothing() {
    let pool = shop(&[("Look", &policy("access: ACCESS_PUBLIC")), ("Buy", "")]);
    let policies = Policies::with_default(&pool, Policy::user()).unwrap();
    assert_eq!(policies.get("/shop.v1.Shop/Look").unwrap().access, Access::Public);
    assert_eq!(policies.get("/shop.v1.Shop/Buy"), Some(&Policy::user()));

    let wrong = shop(&[("Buy", &policy("retry: RETRY_SAFE"))]);
    Policies::with_default(&wrong, Policy::user()).expect_err("a wrong policy is not taken for none");
}

#[test]
fn contracts_of_others_cannot_loosen_ours() {
    let ours = Policies::of(&shop(&[("Buy", &policy("access: ACCESS_ADMIN"))])).unwrap();
    let theirs =
        Policies::of(&shop(&[("Buy", &policy("access: ACCESS_PUBLIC")), ("Look", &policy("access: ACCESS_PUBLIC"))]));
    let both = ours.merged_with(theirs.unwrap());
    assert_eq!(both.get("/shop.v1.Shop/Buy").unwrap().access, Access::Admin);
    assert_eq!(both.get("/shop.v1.Shop/Look").unwrap().access, Access::Public);
}
