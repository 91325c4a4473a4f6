//! Declarations: parameters, registers, arrays and their initial values.

use super::{ParseError, Parser, Scope, Symbol, lexer};
use crate::{
    decode::{Operand, Type},
    execute::space::{CONST_START, GLOBALS_START, LOCAL_START},
    program::{Kernel, SPECIAL, Slot, Space, Variable},
};
use std::collections::HashMap;

/// The largest array. A GPU gives a thread 512 KiB of its own and a block less; tables of a module may be larger.
const MOST_BYTES: u64 = 1 << 26;

/// A declared array: its name, alignment and size in bytes; none for an array without a length.
pub(super) struct Declared {
    pub name: String,
    pub align: u64,
    pub bytes: Option<u64>,
    pub element: u64,
}

impl Scope {
    fn new(bank: u32, name: Option<String>, registers: usize, local_bytes: u64) -> Self {
        let (names, ranges) = (vec![HashMap::new()], vec![Vec::new()]);
        Self { bank, name, registers, local_bytes, shared: (0, 1), names, ranges }
    }

    pub(super) fn kernel(kernel: &Kernel) -> Self {
        let mut scope = Self::new(Slot::KERNEL, None, SPECIAL.len(), LOCAL_START);
        for v in &kernel.parameters {
            scope.names[0].insert(v.name.clone(), Operand::Symbol { space: Space::Param, offset: v.offset });
        }
        scope
    }

    pub(super) fn function(name: &str, function: &super::Function, registers: usize, local_bytes: u64) -> Self {
        let mut scope = Self::new(Slot::FUNCTION, Some(name.into()), registers, local_bytes);
        for v in function.parameters.iter().chain(&function.results) {
            scope.names[0].insert(v.name.clone(), Operand::Symbol { space: Space::Local, offset: v.offset });
        }
        scope
    }

    /// A register or a variable of the function.
    pub(super) fn find(&self, name: &str) -> Option<Operand> {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[prefix.len()..].parse::<u64>().ok();
        for (names, ranges) in self.names.iter().zip(&self.ranges).rev() {
            if let Some(operand) = names.get(name) {
                return Some(operand.clone());
            }
            let range = ranges.iter().find(|(p, count, ..)| p == prefix && number.is_some_and(|n| n < *count));
            if let (Some((_, _, first, ty)), Some(n)) = (range, number) {
                return Some(Operand::Register { slot: Slot::new(self.bank, first + n as usize), ty: *ty });
            }
        }
        let special = SPECIAL.iter().position(|s| *s == name && *s != "%dynamic_smem_start")?;
        Some(Operand::Register { slot: Slot::new(Slot::KERNEL, special), ty: Type::U32 })
    }
}

impl Parser<'_> {
    /// `.align 8 .b8 name[16]`, behind the space.
    pub(super) fn declared(&mut self) -> Result<Declared, ParseError> {
        let mut align = 0;
        if self.take(".align") {
            align = self.number()?;
        }
        let vector = match self.peek() {
            ".v2" => 2,
            ".v4" => 4,
            _ => 1,
        };
        self.at += usize::from(vector > 1);
        let element = u64::from(self.ty()?.bits() / 8).max(1) * vector;
        self.named(element, align.max(element))
    }

    fn named(&mut self, element: u64, align: u64) -> Result<Declared, ParseError> {
        if !align.is_power_of_two() {
            return self.error("an alignment that is no power of two");
        }
        let name = self.next().to_string();
        let mut bytes = Some(element);
        while self.take("[") {
            let length = if self.peek() == "]" { None } else { Some(self.number()?) };
            let product = bytes.zip(length).map(|(b, n)| b.checked_mul(n).filter(|b| *b <= MOST_BYTES));
            bytes = match product {
                Some(None) => return self.error(format!("{name} has more than {MOST_BYTES} bytes")),
                Some(bytes) => bytes,
                None => None,
            };
            self.expect("]")?;
        }
        Ok(Declared { name, align, bytes, element })
    }

    /// A parameter of a function and its alignment.
    pub(super) fn parameter(&mut self) -> Result<(Variable, u64), ParseError> {
        self.expect(".param")?;
        let mut align = 0;
        if self.take(".align") {
            align = self.number()?;
        }
        let element = u64::from(self.ty()?.bits() / 8);
        // What a pointer points to: a promise to the compiler.
        if self.take(".ptr") {
            if matches!(self.peek(), ".global" | ".shared" | ".const" | ".local") {
                self.at += 1;
            }
            if self.take(".align") {
                self.number()?;
            }
        }
        let declared = self.named(element, align.max(element))?;
        let Some(bytes) = declared.bytes else { return self.error("a parameter without a length") };
        Ok((Variable { name: declared.name, offset: 0, bytes }, declared.align))
    }

    /// `.reg .b32 %r<78>, %x;`
    pub(super) fn registers(&mut self, scope: &mut Scope) -> Result<(), ParseError> {
        let ty = self.ty()?;
        loop {
            let name = self.next().to_string();
            let first = scope.registers;
            if self.take("<") {
                let count = self.number()?;
                self.expect(">")?;
                scope.registers += count as usize;
                scope.ranges.last_mut().expect("a scope is open").push((name, count, first, ty));
            } else {
                scope.registers += 1;
                let operand = Operand::Register { slot: Slot::new(scope.bank, first), ty };
                scope.names.last_mut().expect("a scope is open").insert(name, operand);
            }
            if scope.registers > 1 << 20 {
                return self.error("too many registers");
            }
            if !self.take(",") {
                return self.expect(";");
            }
        }
    }

    /// An array of a function: `.local`, `.param` or `.shared`.
    pub(super) fn local_variable(&mut self, space: Space, scope: &mut Scope) -> Result<(), ParseError> {
        let declared = self.declared()?;
        let Some(bytes) = declared.bytes else { return self.error("an array without a length") };
        let operand = if space == Space::Shared {
            let symbol = self.shared_variable(&declared, bytes);
            scope.shared = (scope.shared.0.max(symbol.shared_end), scope.shared.1.max(symbol.shared_align));
            symbol.operand
        } else {
            let offset = scope.local_bytes.next_multiple_of(declared.align.max(8));
            scope.local_bytes = offset + bytes;
            if bytes > 512 << 10 {
                return self.error(format!("{} has more than the 512 KiB of a thread", declared.name));
            }
            Operand::Symbol { space: Space::Local, offset }
        };
        scope.names.last_mut().expect("a scope is open").insert(declared.name, operand);
        self.expect(";")
    }

    fn shared_variable(&mut self, declared: &Declared, bytes: u64) -> Symbol {
        let offset = self.shared_cursor.next_multiple_of(declared.align);
        self.shared_cursor = offset + bytes;
        let operand = Operand::Symbol { space: Space::Shared, offset };
        Symbol { operand, shared_end: self.shared_cursor, shared_align: declared.align }
    }

    /// A variable of the module.
    pub(super) fn module_variable(&mut self, space: Space, external: bool) -> Result<(), ParseError> {
        let declared = self.declared()?;
        if space != Space::Shared && (external || declared.bytes.is_none()) {
            return self.error(format!("variable {} is defined elsewhere", declared.name));
        }
        let symbol = match (space, declared.bytes) {
            (Space::Shared, None | Some(0)) => {
                Symbol { operand: Operand::Dynamic, shared_end: 0, shared_align: declared.align }
            }
            (Space::Shared, Some(bytes)) => self.shared_variable(&declared, bytes),
            (_, bytes) => {
                let bytes = bytes.unwrap_or(0) as usize;
                let image =
                    if space == Space::Global { &mut self.program.globals } else { &mut self.program.constant_bytes };
                let at = image.len().next_multiple_of(declared.align as usize);
                image.resize(at + bytes, 0);
                let start = if space == Space::Global { GLOBALS_START } else { CONST_START };
                if self.take("=") {
                    let values = self.initial(declared.element)?;
                    if values.len() > bytes {
                        return self.error("too many initial values");
                    }
                    let image = if space == Space::Global {
                        &mut self.program.globals
                    } else {
                        &mut self.program.constant_bytes
                    };
                    image[at..at + values.len()].copy_from_slice(&values);
                }
                Symbol { operand: Operand::Symbol { space, offset: start + at as u64 }, shared_end: 0, shared_align: 1 }
            }
        };
        self.symbols.insert(declared.name, symbol);
        self.expect(";")
    }

    /// `{1, 2, 0f3f800000}`, nested or not, or a single value, in elements of `bytes`.
    fn initial(&mut self, bytes: u64) -> Result<Vec<u8>, ParseError> {
        if self.take("{") {
            self.depth += 1;
            if self.depth > 8 {
                return self.error("initial values in too many braces");
            }
            let mut values = Vec::new();
            while !self.take("}") {
                values.extend(self.initial(bytes)?);
                self.take(",");
            }
            self.depth -= 1;
            return Ok(values);
        }
        let negative = self.take("-");
        let word = self.peek();
        let value = match (lexer::float(word), lexer::integer(word)) {
            (Some(value), _) if bytes == 4 => u64::from((value as f32).to_bits()),
            (Some(value), _) if bytes == 8 => value.to_bits(),
            (None, Some(value)) if negative => value.wrapping_neg(),
            (None, Some(value)) => value,
            _ => return self.error(format!("`{word}` is no initial value that is known")),
        };
        if negative && lexer::float(word).is_some() {
            return self.error("a negative decimal number as initial value");
        }
        self.at += 1;
        Ok(value.to_le_bytes()[..bytes.min(8) as usize].to_vec())
    }
}
