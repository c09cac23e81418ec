"""The type checker that the import hook puts on the package: beartype, int accepted where float is asked."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
