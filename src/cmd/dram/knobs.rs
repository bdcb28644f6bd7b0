//! Options of `presil dram replay` that set the device's mode and the controller's rules.

use soc_model::dram::controller::{MOST_SLOTS, WATERMARKS};
use soc_model::dram::{BankMode, Controller, Mode, Standard};

/// Temperature above which rows are slower.
const HOT_CELSIUS: i32 = 85;
/// Refresh interval above it, in thousandths, unless asked otherwise: estimate, accuracy class C; a device asks for
/// its own in MR4.
const HOT_REFRESH_PERMILLE: u32 = 500;

/// How the device is set.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Device")]
pub(super) struct DeviceOptions {
    /// Gigabits of the channel's die: 8, 16 or 32
    #[arg(long, value_name = "GBIT")]
    density: Option<u64>,
    /// Beats of a burst: 16 (32 bytes) or 32 (64 bytes)
    #[arg(long, default_value = "16", value_parser = ["16", "32"], value_name = "BEATS")]
    burst_length: String,
    /// Banks: bank-group (4 x 4), 16-bank (up to 3200 Mb/s) or 8-bank (with --burst-length 32)
    #[arg(long, default_value = "bank-group", value_name = "MODE")]
    bank_mode: String,
    /// Parity on the link, reads and writes: longer latencies
    #[arg(long)]
    link_ecc: bool,
    /// Case temperature; above 85 C rows are slower and refreshes twice as frequent
    #[arg(long, default_value_t = 25, value_name = "CELSIUS", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-40..=125))]
    temperature: i32,
    /// Refresh interval relative to tREFI: 0.25 to 4, as the device asks for in MR4
    #[arg(long, value_name = "X")]
    refresh_interval: Option<String>,
    /// Clock relative to nominal, in thousandths; latencies in nanoseconds stay
    #[arg(long, default_value_t = 1000, value_name = "PERMILLE", value_parser = clap::value_parser!(u32).range(100..=1500))]
    frequency_scale: u32,
}

/// How the controller is set; what is not given is as in the standard's `[controller]` table.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Controller")]
pub(super) struct ControllerOptions {
    /// Reads that can wait: 1 to 64 [default: 32]
    #[arg(long, value_name = "N")]
    read_buffer: Option<u32>,
    /// Writes that can wait: 1 to 64 [default: 32]
    #[arg(long, value_name = "N")]
    write_buffer: Option<u32>,
    /// Shares of the write buffer: writing ends below LOW and starts above HIGH (also LOW:HIGH) [default: 0.2,0.8]
    #[arg(long, value_name = "LOW,HIGH")]
    watermarks: Option<String>,
    /// CKs after which a waiting read ends writing [default: never]
    #[arg(long, value_name = "CK")]
    read_patience: Option<u64>,
    /// Refresh commands: none, all-bank or per-bank [default: all-bank]
    #[arg(long, value_name = "KIND")]
    refresh: Option<String>,
    /// All-bank refreshes (eight per-bank ones each) that may be put off while requests wait: 0 to 8 [default: 0]
    #[arg(long, value_name = "N")]
    postpone_refresh: Option<u32>,
    /// Rows: open, closed (after 4 column commands), closed:CAP or adaptive [default: open]
    #[arg(long, value_name = "POLICY")]
    row_policy: Option<String>,
    /// Order: oldest-ready, or row-hit-first: no row closes before older hits on it [default: oldest-ready]
    #[arg(long, value_name = "RULE")]
    scheduler: Option<String>,
    /// Data clock: need-sync (a CAS restarts it) or always-on [default: need-sync]
    #[arg(long, value_name = "MODE")]
    wck: Option<String>,
    /// CKs after which a request goes before every class [default: never]
    #[arg(long, value_name = "CK")]
    age_limit: Option<u64>,
    /// CKs without a request before power-down [default: never]
    #[arg(long, value_name = "CK")]
    power_down_after: Option<u64>,
    /// CKs without a request before self-refresh; needs --power-down-after [default: never]
    #[arg(long, value_name = "CK", requires = "power_down_after")]
    self_refresh_after: Option<u64>,
}

/// Thousandths of a decimal such as `0.25`.
fn permille(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0
        || whole.len() > 3
        || fraction.len() > 3
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    Some(whole * 1000 + format!("{fraction:0<3}").parse::<u32>().ok()?)
}

impl DeviceOptions {
    /// The standard in this mode.
    pub(super) fn apply(&self, standard: &Standard, problems: &mut Vec<String>) -> Option<Standard> {
        let before = problems.len();
        let hot = self.temperature > HOT_CELSIUS;
        let refresh_permille = match &self.refresh_interval {
            None if hot => HOT_REFRESH_PERMILLE,
            None => 1000,
            Some(text) => permille(text).filter(|p| (250..=4000).contains(p)).unwrap_or_else(|| {
                problems.push(format!("--refresh-interval: `{text}` is not a number from 0.25 to 4"));
                1000
            }),
        };
        let banks = self.bank_mode.parse().unwrap_or_else(|e| {
            problems.push(format!("--bank-mode: {e}"));
            BankMode::BankGroup
        });
        if let Some(gbit) = self.density.filter(|g| ![8, 16, 32].contains(g)) {
            problems.push(format!("--density: {gbit} is none of 8, 16 and 32"));
        }
        if problems.len() > before {
            return None;
        }
        let mode = Mode {
            density_gbit: self.density,
            bl32: self.burst_length == "32",
            banks,
            link_ecc: self.link_ecc,
            hot,
            refresh_permille,
            frequency_permille: self.frequency_scale,
        };
        match standard.with(mode) {
            Ok(standard) => Some(standard),
            Err(errors) => {
                problems.extend(errors.iter().map(|e| format!("--standard: {e}")));
                None
            }
        }
    }
}

impl ControllerOptions {
    /// The controller of the standard's file with these options.
    pub(super) fn apply(&self, mut c: Controller, problems: &mut Vec<String>) -> Controller {
        fn rule<T: std::str::FromStr<Err: std::fmt::Display>>(
            option: &str,
            text: Option<&String>,
            into: &mut T,
            problems: &mut Vec<String>,
        ) {
            match text.map(|t| t.parse()) {
                Some(Ok(value)) => *into = value,
                Some(Err(e)) => problems.push(format!("--{option}: {e}")),
                None => {}
            }
        }
        let before = problems.len();
        c.read_buffer = self.read_buffer.unwrap_or(c.read_buffer);
        if let Some(slots) = self.write_buffer {
            c.write_buffer = slots;
            if (1..=MOST_SLOTS).contains(&slots) {
                c.set_watermarks(WATERMARKS[0], WATERMARKS[1]);
            }
        }
        if let Some(text) = &self.watermarks {
            let parts =
                text.split_once([',', ':']).and_then(|(low, high)| Some((permille(low)?, permille(high)?)));
            match parts.filter(|&(low, high)| low > 0 && low <= high && high < 1000) {
                Some((low, high)) if c.write_buffer <= MOST_SLOTS => c.set_watermarks(low, high),
                Some(_) => {}
                None => problems.push(format!(
                    "--watermarks: `{text}` is not LOW,HIGH with 0 < LOW <= HIGH < 1, such as 0.2,0.8"
                )),
            }
        }
        c.read_patience = self.read_patience.unwrap_or(c.read_patience);
        c.postpone = self.postpone_refresh.unwrap_or(c.postpone);
        c.age_limit = self.age_limit.unwrap_or(c.age_limit);
        c.power_down_after = self.power_down_after.unwrap_or(c.power_down_after);
        c.self_refresh_after = self.self_refresh_after.unwrap_or(c.self_refresh_after);
        rule("refresh", self.refresh.as_ref(), &mut c.refresh, problems);
        rule("row-policy", self.row_policy.as_ref(), &mut c.rows, problems);
        rule("scheduler", self.scheduler.as_ref(), &mut c.scheduler, problems);
        rule("wck", self.wck.as_ref(), &mut c.wck, problems);
        if problems.len() == before {
            let range = |(key, value, expected)| format!("--{key}: {value} must be {expected}");
            problems.extend(c.problems().into_iter().map(range));
        }
        c
    }
}
