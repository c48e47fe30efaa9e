//! Civil time from seconds and back (proleptic Gregorian calendar, UTC), and its form in the clock's registers.

/// A date and a time of day, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: i64,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl Civil {
    /// The date and time `seconds` after the start of 1970.
    pub(super) fn from_seconds(seconds: i64) -> Self {
        let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years that begin in March, eras of 400.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u8,
            day: (of_year - (153 * from_march + 2) / 5 + 1) as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// The seconds since the start of 1970; nothing for a date that does not exist.
    pub(super) fn seconds(self) -> Option<i64> {
        let year = self.year - i64::from(self.month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let from_march = (i64::from(self.month) + 9) % 12;
        let of_year = (153 * from_march + 2) / 5 + i64::from(self.day) - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        let of_day = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let seconds = days * DAY + of_day;
        (Self::from_seconds(seconds) == self).then_some(seconds)
    }

    /// The day of the week, Sunday being 1.
    pub(super) fn weekday(self) -> u8 {
        let days = self.seconds().unwrap_or(0).div_euclid(DAY);
        ((days + 4).rem_euclid(7) + 1) as u8
    }
}

/// How register B has numbers written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) binary: bool,
    pub(super) hours24: bool,
}

impl Format {
    pub(super) fn encode(self, number: u8) -> u8 {
        if self.binary {
            number
        } else {
            ((number / 10) << 4) | (number % 10)
        }
    }

    pub(super) fn decode(self, register: u8) -> u8 {
        if self.binary {
            register
        } else {
            (register >> 4).wrapping_mul(10).wrapping_add(register & 0x0f)
        }
    }

    pub(super) fn encode_hour(self, hour: u8) -> u8 {
        if self.hours24 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { AFTERNOON } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    pub(super) fn decode_hour(self, register: u8) -> u8 {
        if self.hours24 {
            return self.decode(register);
        }
        let hour = self.decode(register & !AFTERNOON) % 12;
        if register & AFTERNOON == 0 {
            hour
        } else {
            hour + 12
        }
    }
}

const DAY: i64 = 86_400;
const AFTERNOON: u8 = 0x80;
