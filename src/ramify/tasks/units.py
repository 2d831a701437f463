"""The unit table: what a unit is called, what it measures, and its exact size.

Sizes are exact fractions of the dimension's reference unit (metre, gram, litre, second, …) by definition of the
international yard and pound (1959), the US customary volumes and the SI. Three choices follow what people write:
`KB` and `kB` are 1000 bytes, `G` alone is a gigabyte, and a month is a twelfth of 365.2422 days.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ramify.base.errors import TaskError, unknown


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of measurement.

    Attributes:
        symbol: the short name used in worked chains; unique.
        dimension: what it measures (`length`, `mass`, …).
        size: exact size in the dimension's reference unit.
        spellings: every way a question may write it, the symbol among them; no two units share one.
    """

    symbol: str
    dimension: str
    size: Fraction
    spellings: tuple[str, ...]


# One line a unit: symbol | size in the reference unit (a product of factors) | other spellings.
_TABLE = {
    "length": """
        mm | 0.001 | millimetre, millimeter, millimetres
        cm | 0.01 | centimetre, centimeter, centimetres
        m | 1 | metre, meter, meters
        km | 1000 | kilometre, kilometer, kilometers
        in | 0.0254 | inch, inches
        ft | 0.3048 | foot, feet
        yd | 0.9144 | yard, yards
        mi | 1609.344 | mile, miles
        nmi | 1852 | nautical mile, nautical miles
        fathom | 1.8288 | fathoms
        furlong | 201.168 | furlongs""",
    "mass": """
        mg | 0.001 | milligram, milligrams
        g | 1 | gram, grams
        kg | 1000 | kilogram, kilograms, kilo
        t | 1000000 | metric ton, tonne, tonnes
        oz | 28.349523125 | ounce, ounces
        lb | 453.59237 | pound, pounds, lbs
        stone | 6350.29318 | st, stones
        carat | 0.2 | ct, carats""",
    "volume": """
        ml | 0.001 | millilitre, milliliter, mL, cm^3, cc, cm**3, cubic centimetre
        cl | 0.01 | centilitre, centiliter, cL
        l | 1 | litre, liter, litres, liters, L
        m^3 | 1000 | m**3, cubic metre, cubic meter, m3
        tsp | 0.00492892159375 | teaspoon, teaspoons
        tbsp | 0.01478676478125 | tablespoon, tablespoons
        floz | 0.0295735295625 | fluid ounce, fl oz, fluid ounces
        cup | 0.2365882365 | cups
        pt | 0.473176473 | pint, pints
        qt | 0.946352946 | quart, quarts
        gal | 3.785411784 | gallon, gallons
        ft^3 | 28.316846592 | cubic foot, cubic feet, ft**3""",
    "time": """
        ms | 0.001 | millisecond, milliseconds
        s | 1 | second, seconds, sec
        min | 60 | minute, minutes
        h | 3600 | hour, hours, hr
        day | 86400 | days
        week | 604800 | weeks
        month | 365.2422*7200 | months
        year | 365.2422*86400 | years, yr
        decade | 3652.422*86400 | decades
        century | 36524.22*86400 | centuries""",
    "speed": """
        m/s | 1 | metre per second, meters per second, mps
        km/h | 1/3.6 | kmh, kph, kilometre per hour, kilometers per hour
        mi/h | 0.44704 | mph, mile per hour, miles per hour
        ft/s | 0.3048 | foot per second, feet per second, fps
        in/s | 0.0254 | inch per second, inches per second
        knot | 1852/3600 | kn, knots""",
    "data": """
        bit | 1 | bits
        B | 8 | byte, bytes
        kB | 8000 | KB, kilobyte, kilobytes
        MB | 8000000 | megabyte, megabytes
        GB | 8000000000 | G, gigabyte, gigabytes
        TB | 8000000000000 | terabyte, terabytes""",
    "area": """
        cm^2 | 0.0001 | cm**2, square centimetre, square centimeters
        m^2 | 1 | m**2, square metre, square meter, m2
        km^2 | 1000000 | km**2, square kilometre, square kilometers
        ha | 10000 | hectare, hectares
        acre | 4046.8564224 | acres
        ft^2 | 0.09290304 | ft**2, square foot, square feet
        in^2 | 0.00064516 | in**2, square inch, square inches""",
    "pressure": """
        Pa | 1 | pascal, pascals
        kPa | 1000 | kilopascal, kilopascals
        bar | 100000 | bars
        atm | 101325 | atmosphere, atmospheres
        psi | 4.4482216152605/0.00064516 | pound per square inch, pounds per square inch
        mmHg | 133.322387415 | millimetre of mercury""",
    "energy": """
        J | 1 | joule, joules
        kJ | 1000 | kilojoule, kilojoules
        cal | 4.184 | calorie, calories
        kcal | 4184 | kilocalorie, kilocalories
        Wh | 3600 | watt hour, watt hours
        kWh | 3600000 | kilowatt hour, kilowatt hours""",
    "power": """
        W | 1 | watt, watts
        kW | 1000 | kilowatt, kilowatts
        MW | 1000000 | megawatt, megawatts
        hp | 550*0.3048*4.4482216152605 | horsepower""",
}


def _size(text: str) -> Fraction:
    """`a*b*c` or `a/b`, exactly."""
    product, _, divisor = text.partition("/")
    size = Fraction(1, 1) / Fraction(divisor or "1")
    for factor in product.split("*"):
        size *= Fraction(factor)
    return size


def _unit(dimension: str, line: str) -> Unit:
    symbol, size, spellings = (part.strip() for part in line.split("|"))
    return Unit(symbol, dimension, _size(size), (symbol, *(word.strip() for word in spellings.split(","))))


UNITS: tuple[Unit, ...] = tuple(
    _unit(dimension, line) for dimension, lines in _TABLE.items() for line in lines.strip().splitlines()
)
DIMENSIONS: tuple[str, ...] = tuple(_TABLE)

_BY_SPELLING = {spelling: unit for unit in UNITS for spelling in unit.spellings}


def find_unit(spelling: str) -> Unit:
    """The unit that `spelling` names, exactly as written (`MB` and `mb` differ).

    Raises:
        TaskError: no unit is spelled so.
    """
    if spelling not in _BY_SPELLING:
        raise TaskError(unknown("unit", spelling, (unit.symbol for unit in UNITS)))
    return _BY_SPELLING[spelling]
