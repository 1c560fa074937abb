//! Hashes that others made: of specifications, of reference implementations and of libcrypt.
use super::*;

const PASSWORD: &str = "correct horse battery";

fn matches(password: &str, text: &str) -> bool {
    Stored::parse(text).unwrap_or_else(|error| panic!("{error}: {text}")).matches(password, &mut Vec::new())
}

/// Of each kind one that `password` matches, with a low cost where there is a choice.
const VECTORS: [(&str, &str); 16] = [
    // jBCrypt's, and one of libxcrypt.
    ("", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
    ("a", "$2y$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
    ("abcdefghijklmnopqrstuvwxyz", "$2a$08$aTsUwsyowQuzRrDqFflhgekJ8d9/7Z3GV3UcgvzQW3J5zMyrTvlz."),
    (PASSWORD, "$2b$06$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0u"),
    // RFC 7914.
    (
        "pleaseletmein",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw",
    ),
    (PASSWORD, "$scrypt$ln=10,r=8,p=1$d2VmdCBzYWx0IGJ5dGVzIQ$7xx1ZWZtm33Uji4CfxmqvAUWuyyt7iVn7EsDqDqUeeo"),
    // Of Firebase's own tool, and one of Python's `cryptography`.
    (
        "user1password",
        "$firebase-scrypt$m=14,r=8,k=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==,s=Bw==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
    ),
    (
        PASSWORD,
        "$firebase-scrypt$m=10,r=8,k=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA,s=Bw$42xEC-ixf3L2lw$ibs9huSHr0fFYD4PLTsikxBnkIXlLRQynAeI_geb0SmdMbEgVIiHq3qlwOEwuyW14MMdJfh2DzU9WUV1oOmHqA",
    ),
    // RFC 7914, and Python's hashlib.
    (
        "passwd",
        "$pbkdf2-sha256$i=1$c2FsdA$VawEblbjCJ/sFpHCJUS2BflBhSFt3gRl5oudV8INrLxJypzM8Xm2RZkWZLOdd+8xfHG4RbHjC9UJESBB06GXgw",
    ),
    (PASSWORD, "$pbkdf2-sha256$i=1000,l=32$d2VmdCBzYWx0IGJ5dGVzIQ$7VBQr19VwyklUvMgE5Rpvq1eJzrv+3VLsHx2pFADfhs"),
    (
        PASSWORD,
        "$pbkdf2-sha512$i=1000$d2VmdCBzYWx0IGJ5dGVzIQ$kPmY4108i4pjlpLOI2DvRzuYrCxUXCaDA3A0Fvvv4bXpJigxndSoRlafLkOEQU1JpBBvuvh5oXpbQy7wyiCuoQ",
    ),
    (PASSWORD, "pbkdf2_sha256$1000$seasalt$DrdiWD40lyBuydnjvZiDrdQMx1S1mOA9O0QYex0R6ww="),
    // The reference implementation of argon2.
    ("password", "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA"),
    ("password", "$argon2i$m=65536,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ"),
    ("password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"),
    ("password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"),
];

#[test]
fn hashes_from_elsewhere_match_their_password_and_no_other() {
    for (password, text) in VECTORS {
        assert!(matches(password, text), "{text}");
        assert!(!matches("another password", text), "{text}");
        assert!(!matches(&format!("{password}x"), text), "{text}");
        assert!(!Stored::parse(text).unwrap().is_ours(), "{text}");
    }
}

#[test]
fn what_stands_in_for_a_hash_costs_what_it_does() {
    let cost = |text: &str| match Stored::parse(text).unwrap() {
        // Not the key itself, which is the same for everybody of one project.
        Stored { kind: Kind::Firebase { log_n, r, .. }, hash, .. } => {
            (Kind::Scrypt { log_n, r, p: 1 }, FIREBASE_DERIVED_BYTES.max(hash.len()))
        }
        Stored { kind, hash, .. } => (kind, hash.len()),
    };
    for (password, text) in VECTORS {
        let stored = Stored::parse(text).unwrap();
        let shape = stored.shape();
        assert_eq!(cost(&shape), cost(text), "{shape}");
        assert_eq!(Stored::parse(&shape).unwrap().shape(), shape);
        assert!(!matches(password, &shape));
        assert!(!text.contains("k=") || !shape.contains("jxspr8"), "{shape}");
    }
}

#[test]
fn bcrypt_never_looks_at_a_part_of_a_password_only() {
    // Of 72 times x, by libxcrypt, which cuts what is longer.
    let text = "$2b$06$DCq7YPn5Rq63x1Lad4cll.q6Th.KK9DztzprNMGBjynEpoNH1SEsa";
    assert!(matches(&"x".repeat(72), text));
    for other in [71, 73, 100, 1024] {
        assert!(!matches(&"x".repeat(other), text), "{other} bytes");
    }
    // The password "a" and its end, again and again, is what "a\0a" would be too.
    assert!(!matches("a\0a", VECTORS[1].1));
    assert!(!matches("\0", VECTORS[0].1));
}

#[test]
fn a_hash_that_asks_for_too_much_is_refused_unread() {
    let salted = "$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA";
    for parameters in [
        "$argon2id$v=19$m=10485760,t=1,p=1",
        "$argon2id$v=19$m=131073,t=1,p=1",
        "$argon2id$v=19$m=131072,t=9,p=1",
        "$argon2id$v=19$m=8,t=4294967295,p=1",
        "$argon2id$v=19$m=131072,t=1,p=17",
        "$scrypt$ln=63,r=8,p=1",
        "$scrypt$ln=18,r=8,p=1",
        "$scrypt$ln=17,r=8,p=16",
        "$scrypt$ln=1,r=4294967295,p=1",
        "$scrypt$ln=1,r=1,p=4294967295",
        "$scrypt$ln=0,r=1,p=1",
        "$firebase-scrypt$m=40,r=8,k=wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA,s=Bw",
        "$pbkdf2-sha256$i=2147483648",
        "$pbkdf2-sha512$i=2000001",
        "$pbkdf2-sha256$i=0",
    ] {
        assert_eq!(Stored::parse(&format!("{parameters}{salted}")), Err(TOO_DEAR), "{parameters}");
    }
    for text in [
        "$2b$31$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0u",
        "$2b$15$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0u",
        "$2b$03$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0u",
        "pbkdf2_sha256$2000001$seasalt$DrdiWD40lyBuydnjvZiDrdQMx1S1mOA9O0QYex0R6ww=",
    ] {
        assert_eq!(Stored::parse(text), Err(TOO_DEAR), "{text}");
    }
}

#[test]
fn what_is_no_hash_is_refused() {
    let good = VECTORS.map(|(_, text)| text);
    for text in good {
        // Cut short, or with more at the end: never another hash, and never a panic.
        for end in 0..text.len() {
            if let Ok(stored) = Stored::parse(&text[..end]) {
                assert!(stored.hash.len() >= 16, "{}", &text[..end]);
            }
        }
        assert!(Stored::parse(&format!("{text}$")).is_err(), "{text}");
        assert!(Stored::parse(&format!(" {text}")).is_err(), "{text}");
    }
    for text in [
        "",
        "$",
        "hunter2hunter2",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "$2x$06$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0u",
        "$2b$6$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0u",
        "$2b$+6$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0u",
        "$2b$06$DCq7YPn5Rq63x1Lad4cll.oXp2fR/LWImwY/3PZCvBY.a9VTt7t0",
        "$argon2id$v=19$m=65536,t=2,p=1,keyid=AAAA$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2x$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ",
        "$scrypt$r=8,ln=10,p=1$d2VmdCBzYWx0$7xx1ZWZtm33Uji4CfxmqvAUWuyyt7iVn7EsDqDqUeeo",
        "$scrypt$ln=10,r=8,p=1$$7xx1ZWZtm33Uji4CfxmqvAUWuyyt7iVn7EsDqDqUeeo",
        "$pbkdf2-sha256$i=1000,l=31$d2VmdCBzYWx0$7VBQr19VwyklUvMgE5Rpvq1eJzrv+3VLsHx2pFADfhs",
        "$pbkdf2-sha1$i=1000$d2VmdCBzYWx0$7VBQr19VwyklUvMgE5Rpvq1eJzrv",
        "$firebase-scrypt$m=10,r=8,k=AAAA,s=Bw$42xEC+ixf3L2lw$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
    ] {
        assert!(Stored::parse(text).is_err(), "{text}");
    }
    assert!(Stored::parse(&format!("pbkdf2_sha256$1$salt${}", "A".repeat(2000))).is_err());
}
