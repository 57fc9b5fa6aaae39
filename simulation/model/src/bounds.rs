//! How much may happen in a run, so that there is an end to explore.

/// How often each thing may happen. Also counts how often it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Writes of the client.
    pub writes: u8,
    /// Crashes of a replica, any of them, at any point, with any part of its unsynced tail lost.
    pub crashes: u8,
    /// Promotions committed by kvdb.
    pub promotions: u8,
    /// Shrinks committed by kvdb.
    pub shrinks: u8,
    /// Growths committed by kvdb.
    pub grows: u8,
    /// New epochs only to drop a joiner.
    pub renewals: u8,
    /// Deactivations of a domain.
    pub deactivations: u8,
    /// Activations of a domain.
    pub activations: u8,
    /// Last clients detaching.
    pub releases: u8,
    /// Forced generations.
    pub forced: u8,
    /// Replaced disks.
    pub replacements: u8,
    /// Sessions lost while both ends live.
    pub disconnects: u8,
}

impl Bounds {
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        out.push(self.writes | self.crashes << 4);
        out.push(self.promotions | self.shrinks << 4);
        out.push(self.grows | self.renewals << 4);
        out.push(self.deactivations | self.activations << 4);
        out.push(self.releases | self.forced << 4);
        out.push(self.replacements | self.disconnects << 4);
    }
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (self.writes, "writes"),
            (self.crashes, "crashes"),
            (self.promotions, "promotions"),
            (self.shrinks, "shrinks"),
            (self.grows, "growths"),
            (self.renewals, "renewals"),
            (self.deactivations, "deactivations"),
            (self.activations, "activations"),
            (self.releases, "releases"),
            (self.forced, "forced generations"),
            (self.replacements, "replaced disks"),
            (self.disconnects, "disconnects"),
        ];
        let named: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        out.write_str(&named.join(", "))
    }
}
