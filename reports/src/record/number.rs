use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A measured number. JSON has no infinities and no NaN, so these are stored as `"inf"`, `"-inf"` and `"nan"`;
/// everything else is a JSON number that reads back to the same bits.
///
/// Numbers are totally ordered with NaN (of either sign) above infinity, because the largest error is the worst
/// one and an error that is not a number is the worst of all.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Number(#[cfg_attr(test, proptest(strategy = "proptest::num::f64::ANY"))] pub f64);

impl Number {
    fn canonical(self) -> f64 {
        if self.0.is_nan() { f64::NAN } else { self.0 }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Number(value)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        // The sign of f64::NAN is not specified, hence the explicit arms.
        match (self.0.is_nan(), other.0.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.0.total_cmp(&other.0),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            finite if finite.is_finite() => serializer.serialize_f64(finite),
            nan if nan.is_nan() => serializer.serialize_str("nan"),
            infinite => serializer.serialize_str(if infinite > 0.0 { "inf" } else { "-inf" }),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(r#"a number, "inf", "-inf" or "nan""#)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
        Ok(Number(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value as f64))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
        Ok(Number(value as f64))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Number, E> {
        match value {
            "inf" => Ok(Number(f64::INFINITY)),
            "-inf" => Ok(Number(f64::NEG_INFINITY)),
            "nan" => Ok(Number(f64::NAN)),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

impl JsonSchema for Number {
    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A measured number; what JSON has no number for is one of three strings.",
            "anyOf": [{ "type": "number" }, { "enum": ["inf", "-inf", "nan"] }]
        })
    }
}

/// Three significant digits, for people: `0.5`, `12.3`, `4.1e9`, `inf`, `nan`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let value = self.canonical();
        let size = value.abs();
        if value.is_nan() {
            return f.write_str("nan");
        }
        if value == 0.0 || !value.is_finite() {
            return write!(f, "{value}");
        }
        if !(1e-3..1e5).contains(&size) {
            let text = format!("{value:.2e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            return write!(f, "{}e{exponent}", plain(digits));
        }
        let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
        f.write_str(plain(&format!("{value:.decimals$}")))
    }
}

/// Without the zeros that end a decimal fraction.
fn plain(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::Number;

    #[test]
    fn nan_is_the_worst_error() {
        let mut numbers = [f64::NAN, 1.0, -f64::NAN, f64::INFINITY, 0.0, f64::NEG_INFINITY].map(Number);
        numbers.sort();
        assert_eq!(numbers[..4], [f64::NEG_INFINITY, 0.0, 1.0, f64::INFINITY].map(Number));
        assert!(numbers[4].0.is_nan() && numbers[5].0.is_nan());
        assert_eq!(Number(f64::NAN), Number(-f64::NAN));
    }

    #[test]
    fn people_read_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (12.345, "12.3"),
            (1234.5, "1234"),
            (4.1e9, "4.1e9"),
            (1.0 / 3.0, "0.333"),
            (1.234e-7, "1.23e-7"),
            (100.0, "100"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(Number(value).to_string(), text);
        }
    }
}
