"""The charge points of a simulated fleet: where they stand, what they can give, how they speak.

Columns by charge point and by connector, all drawn from one seed. No session and no message here.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rating.columns import I32, I64

SHAPES: Final = ("ocpp16", "ocpp201", "flat", "arrow")
TOKENS_PER_CONNECTOR: Final = 6
OWN_TARIFF_EVERY: Final = 23  # every 23rd token brings its driver's own tariff


class Model(NamedTuple):
    """A kind of charger: what it can give and how its meter counts."""

    name: str
    power_w: int
    phases: int
    share: float  # of the fleet
    outlets: float  # probability of a second outlet
    says_currents: bool  # sends Current.Import for each phase


MODELS: Final = (
    Model("Fjord AC 3.7", 3_700, 1, 0.08, 0.0, False),
    Model("Fjord AC 7.4 Twin", 7_400, 1, 0.30, 0.6, False),
    Model("Tide AC 11", 11_000, 3, 0.24, 0.0, True),
    Model("Tide AC 22 Twin", 22_000, 3, 0.22, 0.5, True),
    Model("Gale DC 50", 50_000, 1, 0.11, 0.0, False),
    Model("Gale DC 150", 150_000, 1, 0.05, 0.3, False),
)


class City(NamedTuple):
    """A place where sites stand."""

    code: str
    name: str
    country_code: str  # ISO 3166 alpha-2, as OCPI's party
    country: str  # ISO 3166 alpha-3, as OCPI's address
    time_zone: str
    latitude: float
    longitude: float


CITIES: Final = (
    City("OSL", "Oslo", "NO", "NOR", "Europe/Oslo", 59.91, 10.75),
    City("BGO", "Bergen", "NO", "NOR", "Europe/Oslo", 60.39, 5.32),
    City("TRD", "Trondheim", "NO", "NOR", "Europe/Oslo", 63.43, 10.40),
    City("LON", "London", "GB", "GBR", "Europe/London", 51.51, -0.13),
    City("DND", "Dundee", "GB", "GBR", "Europe/London", 56.46, -2.97),
    City("PAR", "Paris", "FR", "FRA", "Europe/Paris", 48.86, 2.35),
    City("NCE", "Nice", "FR", "FRA", "Europe/Paris", 43.70, 7.27),
    City("LIS", "Lisboa", "PT", "PRT", "Europe/Lisbon", 38.72, -9.14),
    City("OPO", "Porto", "PT", "PRT", "Europe/Lisbon", 41.15, -8.61),
)
# Where in the week arrivals fall: a public fast charger, a street or car-park outlet, a workplace, a home.
KINDS: Final = ("street", "work", "home", "fast")


@dataclass(frozen=True)
class Network:
    """Columns by charge point (`cp_*`), by connector (`connector_*`) and by site (`site_*`)."""

    cp_names: list[bytes]
    cp_site: I32
    cp_model: npt.NDArray[np.int8]
    cp_shape: npt.NDArray[np.int8]  # index into SHAPES
    cp_kwh_unit: npt.NDArray[np.int8]  # 1: the meter values are labelled kWh
    cp_resolution_mwh: I64  # what the register counts in
    connector_cp: I32
    connector_id: I32  # OCPP connector (1.6) or EVSE (2.x) number, from 1
    connector_register_mwh: I64  # of the meter when the simulation begins
    site_city: npt.NDArray[np.int8]
    site_kind: npt.NDArray[np.int8]
    token_names: list[bytes] | None = None  # by token number; None: made from the number
    transaction_ids: I64 | None = None  # by session number, where ids are numbers; None: the session number
    transaction_names: list[bytes] | None = None  # by session number, where ids are texts; None: UUID-like

    @property
    def connectors(self) -> int:
        """How many connectors the fleet has."""
        return len(self.connector_cp)


def make_network(seed: int, charge_points: int, shape: str) -> Network:
    """A fleet of `charge_points`; the same arguments give the same fleet on every machine."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0])))
    cp_site = _sites(rng, charge_points)
    sites = int(cp_site[-1]) + 1
    cp_model = rng.choice(len(MODELS), charge_points, p=[model.share for model in MODELS]).astype(np.int8)
    cp_shape = _shapes(rng, charge_points, shape)
    second = rng.random(charge_points) < np.array([model.outlets for model in MODELS])[cp_model]
    connector_cp = np.repeat(np.arange(charge_points, dtype=np.int32), 1 + second)
    connector_id = np.ones(len(connector_cp), np.int32)
    connector_id[1:][connector_cp[1:] == connector_cp[:-1]] = 2
    site_city = rng.integers(0, len(CITIES), sites).astype(np.int8)
    return Network(
        cp_names=_names(cp_site, site_city),
        cp_site=cp_site,
        cp_model=cp_model,
        cp_shape=cp_shape,
        cp_kwh_unit=(rng.random(charge_points) < 0.25).astype(np.int8),
        cp_resolution_mwh=_resolutions(rng, cp_shape),
        connector_cp=connector_cp,
        connector_id=connector_id,
        connector_register_mwh=rng.integers(50_000, 600_000, len(connector_cp)) * 1_000,
        site_city=site_city,
        site_kind=_kinds(rng, cp_site, cp_model, sites),
    )


def _sites(rng: np.random.Generator, charge_points: int) -> I32:
    sizes = rng.integers(1, 9, charge_points)
    return np.repeat(np.arange(charge_points, dtype=np.int32), sizes)[:charge_points]


def _shapes(rng: np.random.Generator, charge_points: int, shape: str) -> npt.NDArray[np.int8]:
    if shape == "mixed":
        return rng.choice(3, charge_points, p=[0.55, 0.35, 0.10]).astype(np.int8)
    return np.full(charge_points, SHAPES.index(shape), np.int8)


def _resolutions(rng: np.random.Generator, cp_shape: npt.NDArray[np.int8]) -> I64:
    """OCPP 1.6 says meterStart and meterStop in whole Wh, so its registers count Wh; others may count finer."""
    finer = rng.choice(np.array([1_000, 100, 10]), len(cp_shape), p=[0.5, 0.3, 0.2])
    return np.where(cp_shape == SHAPES.index("ocpp16"), 1_000, finer)


def _kinds(rng: np.random.Generator, cp_site: I32, cp_model: npt.NDArray[np.int8], sites: int) -> npt.NDArray[np.int8]:
    kinds = rng.choice(3, sites, p=[0.5, 0.25, 0.25]).astype(np.int8)
    fast = np.array([model.power_w >= 50_000 for model in MODELS])[cp_model]
    kinds[cp_site[fast]] = KINDS.index("fast")
    return kinds


def _names(cp_site: I32, site_city: npt.NDArray[np.int8]) -> list[bytes]:
    first = np.searchsorted(cp_site, cp_site)
    number = (np.arange(len(cp_site)) - first + 1).tolist()
    codes = [CITIES[city].code.encode() for city in site_city.tolist()]
    return [b"%b%06d-%02d" % (codes[site], site, n) for site, n in zip(cp_site.tolist(), number, strict=True)]
