"""JSON Schemas of the CDR object, written down from the tables of OCPI 2.2.1 and 2.3.0 (mod_cdrs, types)."""

from typing import Any

NUMBER = {"type": "number"}
TEXT = {"type": "string", "minLength": 1}
INSTANT = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z?$", "maxLength": 25}
DIMENSIONS = [
    *("CURRENT", "ENERGY", "ENERGY_EXPORT", "ENERGY_IMPORT", "MAX_CURRENT", "MIN_CURRENT", "MAX_POWER", "MIN_POWER"),
    *("PARKING_TIME", "POWER", "RESERVATION_TIME", "STATE_OF_CHARGE", "TIME"),
]


def text(longest: int) -> dict[str, Any]:
    """A string of at most so many characters."""
    return {"type": "string", "minLength": 1, "maxLength": longest}


def record(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object that has all required fields, maybe the optional ones, and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


TOKEN = record({"country_code": text(2), "party_id": text(3), "uid": text(36), "type": TEXT, "contract_id": text(36)})
LOCATION = record(
    {
        "id": text(36),
        "address": text(45),
        "city": text(45),
        "country": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "coordinates": record({"latitude": TEXT, "longitude": TEXT}),
        "evse_uid": text(36),
        "evse_id": text(48),
        "connector_id": text(36),
        "connector_standard": TEXT,
        "connector_format": {"enum": ["SOCKET", "CABLE"]},
        "connector_power_type": TEXT,
    },
    {"name": text(255), "postal_code": text(10), "state": text(20)},
)
PERIOD = record(
    {
        "start_date_time": INSTANT,
        "dimensions": {
            "type": "array",
            "minItems": 1,
            "items": record({"type": {"enum": DIMENSIONS}, "volume": NUMBER}),
        },
    },
    {"tariff_id": text(36)},
)
SIGNED = record(
    {
        "encoding_method": text(36),
        "signed_values": {
            "type": "array",
            "minItems": 1,
            "items": record({"nature": text(32), "plain_data": text(512), "signed_data": text(5000)}),
        },
    },
    {"encoding_method_version": {"type": "integer"}, "public_key": text(512), "url": text(512)},
)
PRICES = {
    "2.2.1": record({"excl_vat": NUMBER}, {"incl_vat": NUMBER}),
    "2.3.0": record(
        {"before_taxes": NUMBER},
        {
            "taxes": {
                "type": "array",
                "items": record({"name": TEXT, "amount": NUMBER}, {"account_number": TEXT, "percentage": NUMBER}),
            }
        },
    ),
}


def schema(version: str) -> dict[str, Any]:
    """The schema of a CDR of this OCPI version."""
    price = PRICES[version]
    costs = ("fixed", "energy", "time", "parking", "reservation")
    return record(
        {
            "country_code": text(2),
            "party_id": text(3),
            "id": text(39),
            "start_date_time": INSTANT,
            "end_date_time": INSTANT,
            "cdr_token": TOKEN,
            "auth_method": {"enum": ["AUTH_REQUEST", "COMMAND", "WHITELIST"]},
            "cdr_location": LOCATION,
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "charging_periods": {"type": "array", "minItems": 1, "items": PERIOD},
            "total_cost": price,
            "total_energy": NUMBER,
            "total_time": NUMBER,
            "last_updated": INSTANT,
        },
        {
            "session_id": text(36),
            "authorization_reference": text(36),
            "meter_id": text(255),
            "tariffs": {"type": "array", "items": {"type": "object", "required": ["id", "currency", "elements"]}},
            "signed_data": SIGNED,
            "total_parking_time": NUMBER,
            "remark": text(255),
            "invoice_reference_id": text(39),
            "credit": {"type": "boolean"},
            "credit_reference_id": text(39),
            "home_charging_compensation": {"type": "boolean"},
            **{f"total_{name}_cost": price for name in costs},
        },
    )
