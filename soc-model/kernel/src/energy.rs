//! The energy ledger: counts per action and voltage epoch, turned into joules once.
//!
//! Energy = sum over epochs of count x attojoules x V^2 / V0^2 in u128, rounded once to femtojoules per action,
//! so that the sum over components is the total by construction and no order of accumulation can matter.

use crate::units::{Energy, MilliVolt};

/// An action that costs energy, as registered with a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(u32);

/// A supply whose voltage scales the actions on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u32);

#[derive(Clone, Debug)]
struct Domain {
    name: String,
    nominal: MilliVolt,
    now: MilliVolt,
}

#[derive(Clone, Debug)]
struct Action {
    component: String,
    name: String,
    attojoules: u64,
    domain: DomainId,
    /// Finished epochs: count x V^2, in units of mV^2.
    closed: u128,
    /// Count in the running epoch.
    open: u64,
    total: u64,
}

/// All energy of a run.
#[derive(Clone, Debug, Default)]
pub struct EnergyLedger {
    domains: Vec<Domain>,
    actions: Vec<Action>,
}

/// One action's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnergyRow {
    /// Component charged.
    pub component: String,
    /// Action.
    pub action: String,
    /// How often.
    pub count: u64,
    /// Energy.
    pub energy: Energy,
}

impl EnergyLedger {
    /// Registers a supply at its nominal voltage (where coefficients were taken) and its present one.
    pub fn domain(&mut self, name: &str, nominal: MilliVolt, now: MilliVolt) -> DomainId {
        self.domains.push(Domain { name: name.to_owned(), nominal, now });
        DomainId(u32::try_from(self.domains.len() - 1).expect("few domains"))
    }

    /// Registers an action of `component` at `attojoules` each, measured at the domain's nominal voltage.
    pub fn action(&mut self, component: &str, name: &str, attojoules: u64, domain: DomainId) -> ActionId {
        self.actions.push(Action {
            component: component.to_owned(),
            name: name.to_owned(),
            attojoules,
            domain,
            closed: 0,
            open: 0,
            total: 0,
        });
        ActionId(u32::try_from(self.actions.len() - 1).expect("few actions"))
    }

    /// Charges `count` times the action.
    #[inline]
    pub fn charge(&mut self, action: ActionId, count: u64) {
        let a = &mut self.actions[action.0 as usize];
        a.open += count;
        a.total += count;
    }

    /// Starts a new voltage epoch on a supply.
    pub fn set_voltage(&mut self, domain: DomainId, now: MilliVolt) {
        let d = &mut self.domains[domain.0 as usize];
        let square = u128::from(d.now.get()) * u128::from(d.now.get());
        for a in self.actions.iter_mut().filter(|a| a.domain == domain) {
            a.closed += u128::from(a.open) * square;
            a.open = 0;
        }
        d.now = now;
    }

    fn energy_of(&self, a: &Action) -> Energy {
        let d = &self.domains[a.domain.0 as usize];
        let v2 = u128::from(d.now.get()) * u128::from(d.now.get());
        let n2 = u128::from(d.nominal.get()) * u128::from(d.nominal.get());
        let scaled = a.closed + u128::from(a.open) * v2;
        let attojoules = scaled * u128::from(a.attojoules) / n2;
        Energy::new(u64::try_from((attojoules + 500) / 1000).expect("energy within 18 kJ"))
    }

    /// Energy of one action so far.
    pub fn energy(&self, action: ActionId) -> Energy {
        self.energy_of(&self.actions[action.0 as usize])
    }

    /// Every action's account, in registration order.
    #[must_use]
    pub fn rows(&self) -> Vec<EnergyRow> {
        self.actions
            .iter()
            .map(|a| EnergyRow {
                component: a.component.clone(),
                action: a.name.clone(),
                count: a.total,
                energy: self.energy_of(a),
            })
            .collect()
    }

    /// Total energy; the sum of all rows by construction.
    pub fn total(&self) -> Energy {
        self.actions.iter().map(|a| self.energy_of(a)).sum()
    }

    /// Name of a supply.
    #[must_use]
    pub fn domain_name(&self, domain: DomainId) -> &str {
        &self.domains[domain.0 as usize].name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voltage_scales_by_its_square_per_epoch() {
        let mut l = EnergyLedger::default();
        let d = l.domain("npu", MilliVolt::new(700), MilliVolt::new(700));
        let mac = l.action("npu.mx", "mac", 50_000, d);
        l.charge(mac, 1000);
        assert_eq!(l.energy(mac), Energy::new(50_000));
        l.set_voltage(d, MilliVolt::new(1400));
        l.charge(mac, 1000);
        assert_eq!(l.energy(mac), Energy::new(50_000 + 200_000));
        assert_eq!(l.total(), l.rows().iter().map(|r| r.energy).sum());
    }
}
