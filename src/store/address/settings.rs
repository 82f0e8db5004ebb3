//! Extracts settings from an address, which is a URL or a list of `key=value` pairs.

use std::iter::Peekable;
use std::str::Chars;

use percent_encoding::percent_decode_str;

/// Removes the settings with these names from an address. Returns the rest and the values. If a name occurs twice, the
/// last value is returned.
pub(super) fn extract<const N: usize>(text: &str, names: [&str; N]) -> (String, [Option<String>; N]) {
    let mut taken = [const { None }; N];
    let mut keep = |name: &str, value: &str| match names.iter().position(|one| *one == name) {
        Some(at) => {
            taken.iter_mut().skip(at).take(1).for_each(|slot| *slot = Some(value.to_owned()));
            false
        }
        None => true,
    };
    let rest = if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let kept = query.split('&').filter(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            keep(name, &percent_decode_str(value).decode_utf8_lossy())
        });
        let kept: Vec<&str> = kept.filter(|pair| !pair.is_empty()).collect();
        if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) }
    } else {
        let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let kept = pairs(text).into_iter().filter(|(name, value)| keep(name, value));
        kept.map(|(name, value)| format!("{name}='{}'", quote(&value))).collect::<Vec<_>>().join(" ")
    };
    (rest, taken)
}

/// Parses `key = value` and `key = 'a value'` pairs. A backslash escapes the next character.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut chars = text.chars().peekable();
    let mut pairs = Vec::new();
    loop {
        skip_spaces(&mut chars);
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        skip_spaces(&mut chars);
        if name.is_empty() && chars.peek().is_none() {
            return pairs;
        }
        // A pair without `=` is kept under its name, and the parser of the address then reports that name.
        chars.next_if_eq(&'=');
        skip_spaces(&mut chars);
        pairs.push((name, value(&mut chars)));
    }
}

fn value(chars: &mut Peekable<Chars<'_>>) -> String {
    let is_quoted = chars.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    while let Some(c) = chars.next_if(|c| is_quoted || !c.is_whitespace()) {
        match c {
            '\\' => value.extend(chars.next()),
            '\'' if is_quoted => break,
            _ => value.push(c),
        }
    }
    value
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_extracted_from_both_kinds_of_address() {
        let (rest, taken) =
            extract("postgres://u:p%3D@h/d?sslmode=require&port=1&sslrootcert=%2Fa%20b", ["sslmode", "sslrootcert"]);
        assert_eq!(rest, "postgres://u:p%3D@h/d?port=1");
        assert_eq!(taken, [Some("require".to_owned()), Some("/a b".to_owned())]);
        assert_eq!(extract("postgres://h/d?sslmode=require", ["sslmode"]).0, "postgres://h/d");
        assert_eq!(extract("postgres://h/d", ["sslmode"]), ("postgres://h/d".to_owned(), [None]));

        let (rest, taken) = extract(r"host=h  password = 'it\'s = \\' sslmode=require user=u", ["sslmode"]);
        assert_eq!(rest, r"host='h' password='it\'s = \\' user='u'");
        assert_eq!(taken, [Some("require".to_owned())]);
        assert_eq!(rest.parse::<tokio_postgres::Config>().unwrap().get_password(), Some(br"it's = \".as_slice()));
        assert!(extract("nonsense", ["sslmode"]).0.parse::<tokio_postgres::Config>().is_err());
    }
}
