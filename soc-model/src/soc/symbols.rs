//! Functions of the firmware by address, from the symbols of its ELF file; a stripped file has none.

use object::{Object, ObjectSymbol, SymbolKind};

/// Functions in order of address.
#[derive(Clone, Debug, Default)]
pub(super) struct Symbols {
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    pub(super) fn new(elf: &[u8]) -> Self {
        let Ok(file) = object::File::parse(elf) else { return Self::default() };
        let mut functions: Vec<(u64, u64, String)> = file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.size() > 0)
            .filter_map(|s| Some((s.address(), s.address().checked_add(s.size())?, plain(s.name().ok()?))))
            .collect();
        functions.sort_unstable();
        Self { functions }
    }

    /// The function that holds an address.
    pub(super) fn at(&self, pc: u64) -> Option<&str> {
        let after = self.functions.partition_point(|f| f.0 <= pc);
        let (_, end, name) = self.functions.get(after.checked_sub(1)?)?;
        (pc < *end).then_some(name)
    }
}

/// A Rust name without mangling and hash.
fn plain(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_function_around_it() {
        let f = |from, to, name: &str| (from, to, name.to_owned());
        let s = Symbols { functions: vec![f(16, 32, "a"), f(64, 80, "b")] };
        let found: Vec<_> = [15, 16, 31, 32, 64, 79, 80].map(|pc| s.at(pc)).into();
        assert_eq!(found, [None, Some("a"), Some("a"), None, Some("b"), Some("b"), None]);
        assert_eq!(plain("_ZN2fw4main17h0123456789abcdefE"), "fw::main");
        assert!(Symbols::new(b"no ELF").functions.is_empty());
    }
}
