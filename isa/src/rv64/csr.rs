//! The control and status registers of a machine-mode hart, one row each.
//!
//! Models: the machine-level set plus the floating-point and counter registers.
//! Does not model: supervisor, hypervisor and debug registers; an access to one is an illegal instruction.
//! Physical memory protection registers keep what is written but protect nothing: machine mode is unrestricted.
//! There are no debug triggers: their registers exist and read zero, which is how software finds that out.
//! Source: RISC-V Instruction Set Manual, Volume II, 20240411, chapter "CSR Listing".

/// Who may write a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Read only: a write is an illegal instruction.
    ReadOnly,
}

/// One register.
#[derive(Clone, Copy, Debug)]
pub struct CsrRow {
    /// The register, as an enumeration for exhaustive matches.
    pub csr: Csr,
    /// First number.
    pub number: u16,
    /// How many consecutive numbers the row stands for.
    pub count: u16,
    /// Name; an array's members append their index.
    pub name: &'static str,
    /// Access.
    pub access: Access,
}

macro_rules! csr_table {
    ($( $csr:ident $number:literal x $count:literal $name:literal $access:ident; )*) => {
        /// Every register of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Csr { $( #[doc = concat!("`", $name, "`")] $csr, )* }

        /// The table, ordered by number.
        pub static ROWS: &[CsrRow] = &[ $( CsrRow {
            csr: Csr::$csr, number: $number, count: $count, name: $name, access: Access::$access,
        }, )* ];
    };
}

csr_table! {
    Fflags 0x001 x 1 "fflags" ReadWrite;
    Frm 0x002 x 1 "frm" ReadWrite;
    Fcsr 0x003 x 1 "fcsr" ReadWrite;
    Mstatus 0x300 x 1 "mstatus" ReadWrite;
    Misa 0x301 x 1 "misa" ReadWrite;
    Mie 0x304 x 1 "mie" ReadWrite;
    Mtvec 0x305 x 1 "mtvec" ReadWrite;
    Mcounteren 0x306 x 1 "mcounteren" ReadWrite;
    Mcountinhibit 0x320 x 1 "mcountinhibit" ReadWrite;
    Mhpmevent 0x323 x 29 "mhpmevent" ReadWrite;
    Mscratch 0x340 x 1 "mscratch" ReadWrite;
    Mepc 0x341 x 1 "mepc" ReadWrite;
    Mcause 0x342 x 1 "mcause" ReadWrite;
    Mtval 0x343 x 1 "mtval" ReadWrite;
    Mip 0x344 x 1 "mip" ReadWrite;
    Pmpcfg 0x3a0 x 16 "pmpcfg" ReadWrite;
    Pmpaddr 0x3b0 x 64 "pmpaddr" ReadWrite;
    Tselect 0x7a0 x 1 "tselect" ReadWrite;
    Tdata 0x7a1 x 3 "tdata" ReadWrite;
    Mcycle 0xb00 x 1 "mcycle" ReadWrite;
    Minstret 0xb02 x 1 "minstret" ReadWrite;
    Mhpmcounter 0xb03 x 29 "mhpmcounter" ReadWrite;
    Cycle 0xc00 x 1 "cycle" ReadOnly;
    Time 0xc01 x 1 "time" ReadOnly;
    Instret 0xc02 x 1 "instret" ReadOnly;
    Hpmcounter 0xc03 x 29 "hpmcounter" ReadOnly;
    Mvendorid 0xf11 x 1 "mvendorid" ReadOnly;
    Marchid 0xf12 x 1 "marchid" ReadOnly;
    Mimpid 0xf13 x 1 "mimpid" ReadOnly;
    Mhartid 0xf14 x 1 "mhartid" ReadOnly;
    Mconfigptr 0xf15 x 1 "mconfigptr" ReadOnly;
}

/// The row and the index within it of a register number; `None` if there is no such register.
///
/// Odd-numbered `pmpcfg` registers exist only in RV32 and are absent here.
#[must_use]
pub fn lookup(number: u16) -> Option<(&'static CsrRow, u16)> {
    let at = ROWS.partition_point(|row| row.number <= number);
    let row = &ROWS[at.checked_sub(1)?];
    let index = number - row.number;
    let absent = row.csr == Csr::Pmpcfg && index % 2 == 1;
    (index < row.count && !absent).then_some((row, index))
}

#[cfg(test)]
mod tests {
    use super::{Access, Csr, ROWS, lookup};

    #[test]
    fn rows_are_ordered_and_disjoint() {
        for pair in ROWS.windows(2) {
            assert!(pair[0].number + pair[0].count <= pair[1].number, "{} overlaps", pair[1].name);
        }
    }

    #[test]
    fn access_follows_the_number() {
        for row in ROWS {
            let read_only = row.number >> 10 == 3;
            assert_eq!(read_only, row.access == Access::ReadOnly, "{}", row.name);
        }
    }

    #[test]
    fn lookup_finds_exactly_the_rows() {
        let found = (0..4096u16).filter(|&n| lookup(n).is_some()).count();
        let odd_pmpcfg = 8;
        let declared: usize = ROWS.iter().map(|row| usize::from(row.count)).sum();
        assert_eq!(found, declared - odd_pmpcfg);
        assert_eq!(lookup(0x3b5).map(|(row, i)| (row.csr, i)), Some((Csr::Pmpaddr, 5)));
        assert!(lookup(0x180).is_none(), "satp belongs to supervisor mode");
    }
}
