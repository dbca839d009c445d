//! The types parameters have: numbers, sizes, durations, paths, addresses, lists.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::params::{Param, Shape, wrong_type, wrong_value};
use super::tree::{Node, Value};
use super::units::{Size, parse_duration};
use crate::diagnosis::Findings;

impl Param for bool {
    const SHAPE: Shape = Shape::Boolean;

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let value = node.as_boolean();
        if value.is_none() {
            wrong_type(node, name, &Self::SHAPE, findings);
        }
        value
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Param for $type {
            const SHAPE: Shape = Shape::Integer;

            fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
                let Some(number) = node.as_integer() else {
                    wrong_type(node, name, &Self::SHAPE, findings);
                    return None;
                };
                let value = <$type>::try_from(number).ok();
                if value.is_none() {
                    wrong_value(node, name, &format!("out of range: 0 to {}", <$type>::MAX), findings);
                }
                value
            }

            fn measure(&self) -> Option<u64> {
                Some(u64::from(*self))
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

impl Param for Size {
    const SHAPE: Shape = Shape::Size;

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        if let Some(number) = node.as_integer() {
            let size = u64::try_from(number).ok().map(Size);
            if size.is_none() {
                wrong_value(node, name, "a size is not negative", findings);
            }
            return size;
        }
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        let size = Size::parse(text);
        if size.is_none() {
            wrong_value(node, name, &format!("'{text}' is not {}", Self::SHAPE.words()), findings);
        }
        size
    }

    fn measure(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl Param for Duration {
    const SHAPE: Shape = Shape::Duration;

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        if node.as_integer() == Some(0) {
            return Some(Duration::ZERO);
        }
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        let value = parse_duration(text);
        if value.is_none() {
            wrong_value(node, name, &format!("'{text}' is not {}", Self::SHAPE.words()), findings);
        }
        value
    }

    fn measure(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}

impl Param for String {
    const SHAPE: Shape = Shape::Text("a string");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let text = node.as_text();
        if text.is_none() {
            wrong_type(node, name, &Self::SHAPE, findings);
        }
        text.map(str::to_owned)
    }
}

impl Param for PathBuf {
    const SHAPE: Shape = Shape::Text("a path");

    /// A relative path is relative to the folder of the file that names it.
    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let text = path_text(node, name, &Self::SHAPE, findings)?;
        Some(node.file().folder().join(without_dot(text)))
    }
}

/// A path that may hold `*`, `?`, `[..]` or `{..}`; absolute, or made so by the folder of the file that names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    /// The folder in front of what was written; empty when that is absolute. It holds no pattern, whatever its letters.
    pub folder: PathBuf,
    /// What was written, without a leading `./`.
    pub text: String,
}

impl PathPattern {
    /// The path, when it holds no pattern.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.text)
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path().display().fmt(out)
    }
}

impl Param for PathPattern {
    const SHAPE: Shape = Shape::Text("a path");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let text = without_dot(path_text(node, name, &Self::SHAPE, findings)?).to_owned();
        let folder = if text.starts_with('/') { PathBuf::new() } else { node.file().folder().to_path_buf() };
        Some(Self { folder, text })
    }
}

fn path_text<'a>(node: &'a Node, name: &str, shape: &Shape, findings: &mut Findings) -> Option<&'a str> {
    let Some(text) = node.as_text() else {
        wrong_type(node, name, shape, findings);
        return None;
    };
    if text.is_empty() {
        wrong_value(node, name, "the path is empty", findings);
        return None;
    }
    if text.contains('\0') {
        wrong_value(node, name, "a path holds no NUL", findings);
        return None;
    }
    Some(text)
}

fn without_dot(path: &str) -> &str {
    path.strip_prefix("./").filter(|rest| !rest.is_empty()).unwrap_or(path)
}

/// Where a source listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// An address of this machine, or the unspecified one.
    Ip(IpAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Param for ListenAddr {
    const SHAPE: Shape = Shape::Text("an IP address, or unix:/path");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        match text.strip_prefix("unix:") {
            Some("") => wrong_value(node, name, "the path of the unix socket is empty", findings),
            Some(path) => return Some(Self::Unix(node.file().folder().join(without_dot(path)))),
            None => {}
        }
        if text == "localhost" {
            return Some(Self::Ip(IpAddr::from([127, 0, 0, 1])));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(ip) => Some(Self::Ip(ip)),
            Err(_) if text.starts_with("unix:") => None,
            Err(_) => {
                wrong_value(node, name, &format!("'{text}' is not {}", Self::SHAPE.words()), findings);
                None
            }
        }
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `fd00::/8` or one address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Self { address, bits })
    }

    /// Whether an address is in the network; an IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |most: u8| u32::from(most - self.bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differ = u32::from(a) ^ u32::from(b);
                differ.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differ = u128::from(a) ^ u128::from(b);
                differ.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl Param for Cidr {
    const SHAPE: Shape = Shape::Text("a network, as \"10.0.0.0/8\"");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        let network = Self::parse(text);
        if network.is_none() {
            wrong_value(node, name, &format!("'{text}' is not {}", Self::SHAPE.words()), findings);
        }
        network
    }
}

impl<T: Param> Param for Option<T> {
    const SHAPE: Shape = T::SHAPE;

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        T::read(node, name, findings).map(Some)
    }

    fn measure(&self) -> Option<u64> {
        self.as_ref().and_then(Param::measure)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Param> Param for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(nodes) = node.as_array() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        let values: Vec<T> = nodes.iter().filter_map(|node| T::read(node, name, findings)).collect();
        (values.len() == nodes.len()).then_some(values)
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

/// One value or an array of them; a string with commas is as many.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Param> Param for OneOrMany<T> {
    const SHAPE: Shape = Shape::OneOrMany(&T::SHAPE);

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        if matches!(node.value, Value::Array(_)) {
            return Vec::read(node, name, findings).map(Self);
        }
        let Some(text) = node.as_text() else {
            return T::read(node, name, findings).map(|value| Self(vec![value]));
        };
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        let values: Vec<T> =
            parts.iter().filter_map(|part| T::read(&node.with_text(part), name, findings)).collect();
        (values.len() == parts.len()).then_some(Self(values))
    }

    fn absent() -> Option<Self> {
        Some(Self(Vec::new()))
    }
}

/// A table of parameters, or `"off"`, or nothing, which is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct OrOff<T>(pub Option<T>);

impl<T: Param> Param for OrOff<T> {
    const SHAPE: Shape = Shape::Either(&Shape::Word(&["off"]), &T::SHAPE);

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        if node.as_text() == Some("off") || node.as_boolean() == Some(false) {
            return Some(Self(None));
        }
        if node.as_table().is_none() {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        }
        T::read(node, name, findings).map(|value| Self(Some(value)))
    }

    fn absent() -> Option<Self> {
        Some(Self(None))
    }
}

/// Permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions(pub u32);

impl Param for Permissions {
    const SHAPE: Shape = Shape::Text("permissions in octal, as \"0640\"");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        let digits = text.trim_start_matches("0o");
        let mode = u32::from_str_radix(digits, 8)
            .ok()
            .filter(|mode| *mode <= 0o777 && (3..=4).contains(&digits.len()));
        if mode.is_none() {
            wrong_value(node, name, &format!("'{text}' is not {}", Self::SHAPE.words()), findings);
        }
        mode.map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4/32", "1.2.3.5", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fd12::1", true),
            ("::/0", "1.2.3.4", false),
            ("10.0.0.0/8", "::ffff:10.9.9.9", true),
        ] {
            let network = Cidr::parse(network).expect("a network");
            assert_eq!(
                network.contains(address.parse().expect("an address")),
                inside,
                "{network:?} {address}"
            );
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert_eq!(Cidr::parse(wrong), None, "{wrong}");
        }
    }
}
