//! PTX text as tokens.

use super::ParseError;

/// A word (a directive, an opcode with its modifiers, a name, a number), a string without its quotes, or a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub text: &'a str,
    pub line: u32,
}

/// Splits `text`; comments are left out.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let length = match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ if rest.starts_with("//") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            _ if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or_else(|| ParseError::new(line, "a comment without an end"))? + 2;
                line += rest[..end].matches('\n').count() as u32;
                at += end;
                continue;
            }
            b'"' => {
                let end = rest[1..].find('"').ok_or_else(|| ParseError::new(line, "a string without an end"))?;
                tokens.push(Token { text: &rest[1..=end], line });
                at += end + 2;
                continue;
            }
            b if word(b) => {
                let mut end = 1;
                while end < rest.len() {
                    // Two colons belong to a modifier, one ends a label.
                    if rest[end..].starts_with("::") {
                        end += 2;
                    } else if word(bytes[at + end]) {
                        end += 1;
                    } else {
                        break;
                    }
                }
                end
            }
            b if b.is_ascii() => 1,
            _ => return Err(ParseError::new(line, "a character that PTX does not know")),
        };
        tokens.push(Token { text: &rest[..length], line });
        at += length;
    }
    Ok(tokens)
}

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'%' | b'.')
}

/// The bits of an integer literal: decimal, hexadecimal, octal or binary, with or without `U`.
pub(super) fn integer(text: &str) -> Option<u64> {
    let text = text.strip_suffix('U').unwrap_or(text);
    match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => u64::from_str_radix(&text[2..], 16).ok(),
        [b'0', b'b' | b'B', ..] => u64::from_str_radix(&text[2..], 2).ok(),
        [b'0', _, ..] => u64::from_str_radix(&text[1..], 8).ok(),
        _ => text.parse().ok(),
    }
}

/// The value of `0f` and eight digits, of `0d` and sixteen, or of a decimal number with a point.
pub(super) fn float(text: &str) -> Option<f64> {
    match text.as_bytes() {
        [b'0', b'f' | b'F', ..] if text.len() == 10 => {
            u32::from_str_radix(&text[2..], 16).ok().map(|bits| f32::from_bits(bits).into())
        }
        [b'0', b'd' | b'D', ..] if text.len() == 18 => u64::from_str_radix(&text[2..], 16).ok().map(f64::from_bits),
        _ if text.contains('.') => text.parse().ok(),
        _ => None,
    }
}
