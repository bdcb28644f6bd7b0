//! The timing rows of one LPDDR channel and the numbers made of them.
//!
//! Models: constraints in CK, their sums, and their change with the clock. Does not model: which command they bind,
//! which is in constraints.rs. Source: JESD209-5B/C and JESD209-6; each preset row names its own.

macro_rules! timing_rows {
    ($( $field:ident = $name:literal : $text:literal ),* $(,)?) => {
        /// Timing constraints in CK.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Timings {
            $( #[doc = $text] pub $field: u64, )*
            /// Distance at which a burst of another bank group meshes with one in flight; 0 where none does.
            pub interleave: u64,
            /// Banks: 16, or 8 in 8-bank mode.
            pub banks: u64,
        }

        /// JEDEC names of all rows.
        pub const ROWS: &[&str] = &[ $( $name, )* ];

        impl Timings {
            /// Rows looked up by their JEDEC names, in bank-group mode with 16 banks.
            pub(super) fn from_rows(mut value: impl FnMut(&'static str) -> u64) -> Self {
                Self { $( $field: value($name), )* interleave: 0, banks: 16 }
            }

            /// A row by its JEDEC name.
            pub(super) fn row_mut(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $( $name => Some(&mut self.$field), )*
                    "nCCD_mesh" => Some(&mut self.interleave),
                    _ => None,
                }
            }

            /// JEDEC name and value of every row.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![ $( ($name, self.$field), )* ]
            }
        }
    };
}

timing_rows! {
    cl = "nCL": "Read latency.",
    cwl = "nCWL": "Write latency.",
    rcd = "nRCD": "ACT1 to RD.",
    rcd_w = "nRCDw": "ACT1 to WR.",
    rp_pb = "nRPpb": "Per-bank precharge to ACT1.",
    rp_ab = "nRPab": "All-bank precharge to ACT1.",
    ras = "nRAS": "ACT1 to precharge.",
    rc = "nRC": "ACT1 to ACT1 of the same bank.",
    wr = "nWR": "End of write data to precharge.",
    rtp = "nRTP": "RD to precharge.",
    rrd = "nRRD": "ACT1 to ACT1 of another bank.",
    faw = "nFAW": "Window of four ACT1.",
    ccd_s = "nCCD_S": "Column command to column command, other bank group.",
    ccd_l = "nCCD_L": "Column command to column command, same bank group.",
    bl_min = "nBL_min": "Burst on the bus, other bank group.",
    bl_max = "nBL_max": "Burst on the bus, same bank group.",
    wtr_s = "nWTR_S": "End of write data to RD, other bank group.",
    wtr_l = "nWTR_L": "End of write data to RD, same bank group.",
    ppd = "nPPD": "Precharge to precharge.",
    aad = "nAAD": "Latest ACT2 after its ACT1.",
    rfc_ab = "nRFCab": "All-bank refresh to ACT1.",
    refi = "nREFI": "Average all-bank refresh interval.",
    rfc_pb = "nRFCpb": "Per-bank refresh to ACT1 of the same bank.",
    refi_pb = "nREFIpb": "Average per-bank refresh interval.",
    pbr2pbr = "npbR2pbR": "Per-bank refresh to per-bank refresh.",
    pbr2act = "npbR2act": "Per-bank refresh to ACT1 of another bank.",
    xp = "nXP": "Leaving power-down to the next command.",
    xsr = "nXSR": "Leaving self-refresh to the next command.",
    cspd = "nCSPD": "Shortest power-down.",
    sr = "nSR": "Shortest self-refresh.",
    wck_postamble = "nWCKPST": "WCK keeps running after a burst.",
}

impl Timings {
    /// RD to the end of its data.
    #[must_use]
    pub const fn read_latency(&self) -> u64 {
        self.cl + self.bl_min
    }
    /// RD to WR, any bank group.
    #[must_use]
    pub const fn read_to_write(&self) -> u64 {
        (self.cl + self.bl_min + 2).saturating_sub(self.cwl)
    }
    /// WR to RD of another bank group.
    #[must_use]
    pub const fn write_to_read_other(&self) -> u64 {
        self.cwl + self.bl_min + self.wtr_s
    }
    /// WR to RD of the same bank group.
    #[must_use]
    pub const fn write_to_read_same(&self) -> u64 {
        self.cwl + self.bl_max + self.wtr_l
    }
    /// WR to precharge.
    #[must_use]
    pub const fn write_to_precharge(&self) -> u64 {
        self.cwl + self.bl_min + self.wr
    }

    /// The constraints at `permille` of the nominal CK: rows that JEDEC fixes in nanoseconds shrink with the
    /// clock (rounded up), rows it fixes in CK stay. Latencies follow the clock as the RL and WL tables do.
    #[must_use]
    pub fn at_permille(&self, permille: u32) -> Self {
        let scaled = |ck: u64, least: u64| (ck * u64::from(permille)).div_ceil(1000).max(least);
        let mut t = *self;
        for (row, least) in [
            (&mut t.cl, 4),
            (&mut t.cwl, 2),
            (&mut t.rcd, 2),
            (&mut t.rcd_w, 2),
            (&mut t.rp_pb, 2),
            (&mut t.rp_ab, 2),
            (&mut t.ras, 3),
            (&mut t.wr, 3),
            (&mut t.rtp, 2),
            (&mut t.rrd, 2),
            (&mut t.faw, 8),
            (&mut t.wtr_s, 4),
            (&mut t.wtr_l, 4),
            (&mut t.rfc_ab, 4),
            (&mut t.refi, 16),
            (&mut t.rfc_pb, 4),
            (&mut t.refi_pb, 16),
            (&mut t.pbr2pbr, 2),
            (&mut t.pbr2act, 2),
            (&mut t.xp, 3),
            (&mut t.xsr, 4),
            (&mut t.cspd, 2),
            (&mut t.sr, 2),
        ] {
            *row = scaled(*row, least);
        }
        t.rc = scaled(self.rc, 0).max(t.ras + t.rp_pb);
        t
    }

    /// Row and message of everything that contradicts itself or the model's range.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        let mut check = |ok: bool, row: &'static str, message: String| {
            if !ok {
                out.push((row, message));
            }
        };
        for (name, ck) in self.rows() {
            check(
                ck > 0,
                name,
                format!("timing row `{name}` is zero; every constraint takes at least one CK"),
            );
            let most = match name {
                "nREFI" | "nREFIpb" | "nRFCab" | "nXSR" => MAX_REFRESH_CK,
                "nRFCpb" => MAX_BANK_REFRESH_CK,
                _ => MAX_ROW_CK,
            };
            check(ck <= most, name, format!("timing row `{name}` = {ck} CK exceeds the model's {most} CK"));
        }
        let not_above = [
            ("nRAS", self.ras, "nRC", self.rc, "; nRC is nRAS + nRPpb"),
            ("nRPpb", self.rp_pb, "nRPab", self.rp_ab, "; closing all banks takes longer"),
            ("nRCDw", self.rcd_w, "nRCD", self.rcd, ""),
            ("nCCD_S", self.ccd_s, "nCCD_L", self.ccd_l, ""),
            ("nBL_min", self.bl_min, "nBL_max", self.bl_max, ""),
            ("nWTR_S", self.wtr_s, "nWTR_L", self.wtr_l, ""),
            ("nRRD", self.rrd, "nFAW", self.faw, ""),
            ("nRFCpb", self.rfc_pb, "nRFCab", self.rfc_ab, "; all banks take longer"),
        ];
        for (name, ck, other, most, why) in not_above {
            check(ck <= most, name, format!("{name} = {ck} exceeds {other} = {most}{why}"));
        }
        check(
            self.cl + self.bl_min + 2 > self.cwl,
            "nCWL",
            format!("nCWL = {} leaves no read-to-write gap after nCL = {}", self.cwl, self.cl),
        );
        check(
            self.refi_pb > self.pbr2pbr.max(self.rc + self.rp_pb),
            "nREFIpb",
            format!("nREFIpb = {} leaves no time between refreshes of banks", self.refi_pb),
        );
        check(
            self.refi > self.rfc_ab + self.rc + self.rp_ab + self.write_to_precharge(),
            "nREFI",
            format!("nREFI = {} leaves no time between refreshes of nRFCab = {}", self.refi, self.rfc_ab),
        );
        out
    }
}

/// Longest row the engine's calendar of 1024 CK holds: WR to precharge is a sum of three, scaled by up to 1.5.
pub const MAX_ROW_CK: u64 = 200;
/// Longest per-bank refresh; it is on the same calendar.
pub const MAX_BANK_REFRESH_CK: u64 = 600;
/// Longest refresh row.
pub const MAX_REFRESH_CK: u64 = 100_000;
