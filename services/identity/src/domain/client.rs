//! Where a login came from: as much as its owner needs to recognise it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a user agent that are kept.
const USER_AGENT_BYTES: usize = 120;

/// What is kept of the client that signed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The network of its address; none if the address is not known.
    pub network: Option<String>,
    /// The beginning of what it calls itself.
    pub user_agent: Option<String>,
}

impl Client {
    /// From what the edge says of the connection and the client of itself.
    pub fn new(address: Option<&str>, user_agent: Option<&str>) -> Client {
        let address = address.and_then(|text| text.trim().parse::<IpAddr>().ok());
        let user_agent = user_agent.map(shortened).filter(|text| !text.is_empty());
        Client { network: address.map(network), user_agent }
    }
}

fn shortened(text: &str) -> String {
    let printable: String = text.chars().filter(|letter| !letter.is_control()).collect();
    printable[..printable.floor_char_boundary(USER_AGENT_BYTES)].to_owned()
}

fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_the_network_is_kept() {
        for (address, network) in [
            ("203.0.113.77", Some("203.0.113.0/24")),
            ("::ffff:203.0.113.77", Some("203.0.113.0/24")),
            ("2001:db8:1:2::3", Some("2001:db8:1::/48")),
            ("someone", None),
            ("203.0.113.77, 10.0.0.1", None),
        ] {
            assert_eq!(Client::new(Some(address), None).network.as_deref(), network, "{address}");
        }
    }

    #[test]
    fn of_a_user_agent_the_beginning_is_kept() {
        let kept = |text: &str| Client::new(None, Some(text)).user_agent;
        assert_eq!(kept("curl/8\u{7}.1").as_deref(), Some("curl/8.1"));
        assert_eq!(kept(&"ü".repeat(100)), Some("ü".repeat(60)));
        assert_eq!(kept(&format!("a{}", "ü".repeat(100))), Some(format!("a{}", "ü".repeat(59))));
        assert_eq!(kept(""), None);
    }
}
