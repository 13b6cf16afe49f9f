"""What EPU writes beside its movies, in EPU's own namespaces, so that a reader of real sessions reads simulated ones.

Only what readers are known to use is there; a real exposure's XML has some two hundred elements more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

_SHARED = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
_EPU = "http://schemas.datacontract.org/2004/07/Applications.Epu.Persistence"
_COMMON = "http://schemas.datacontract.org/2004/07/Fei.Applications.Common.Types"
_FRACTIONS = "http://schemas.datacontract.org/2004/07/Fei.Applications.Common.Omp.Interface"
_COLLECTIONS = "http://schemas.datacontract.org/2004/07/System.Collections.Generic"
_ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
_SERIALIZATION = "http://schemas.microsoft.com/2003/10/Serialization/"
_DRAWING = "http://schemas.datacontract.org/2004/07/System.Drawing"
_TYPES = "http://schemas.datacontract.org/2004/07/Fei.Types"
_SCHEMA = "http://www.w3.org/2001/XMLSchema"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_VERSION = "3.9.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpuImage:
    """What one image's XML says, in EPU's units: metres, volts, electrons per square metre.

    `dose_e_per_square_meter` and `fractions` are None for images that are no exposures; `applied_defocus_meter` is
    negative in underfocus. `pixel_size_meter` is that of the stored pixels: there is no super-resolution here.
    """

    unique_id: str
    acquired_at: datetime
    pixel_size_meter: float
    width: int
    height: int
    magnification: int
    voltage_volt: float
    exposure_time_seconds: float
    applied_defocus_meter: float
    stage_x_meter: float
    stage_y_meter: float
    dose_e_per_square_meter: float | None = None
    fractions: int | None = None
    beam_shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class EpuHole:
    """A foil hole: its place in the grid square's image, in pixels, and on the stage, in metres."""

    pixel_x: float
    pixel_y: float
    stage_x_meter: float
    stage_y_meter: float


def image_xml(image: EpuImage) -> str:
    """The XML of a grid square, a foil hole or an exposure (`MicroscopeImage`)."""
    custom = [
        _custom("DetectorCommercialName", "string", "Simulated"),
        _custom("PhasePlateUsed", "boolean", "false"),
        _custom("AppliedDefocus", "double", repr(image.applied_defocus_meter)),
    ]
    if image.dose_e_per_square_meter is not None:
        custom.insert(0, _custom("Dose", "double", repr(image.dose_e_per_square_meter)))
    camera = [_custom("SuperResolutionFactor", "int", "1"), _custom("ElectronCountingEnabled", "boolean", "true")]
    if image.fractions is not None:
        camera.append(
            f'<a:KeyValueOfstringanyType><a:Key>FractionationSettings</a:Key><a:Value xmlns:b="{_FRACTIONS}" '
            f'i:type="b:EquidistantFractionation"><b:NumberOffractions>{image.fractions}</b:NumberOffractions></a:Value>'
            "</a:KeyValueOfstringanyType>"
        )
    pixel_size = f"<numericValue>{image.pixel_size_meter!r}</numericValue>"
    return f"""<MicroscopeImage xmlns="{_SHARED}" xmlns:i="{_INSTANCE}">
<name>Empty</name>
<uniqueID>{escape(image.unique_id)}</uniqueID>
<CustomData xmlns:a="{_ARRAYS}">{"".join(custom)}</CustomData>
<SpatialScale><pixelSize><x>{pixel_size}</x><y>{pixel_size}</y></pixelSize></SpatialScale>
<microscopeData>
<acquisition>
<acquisitionDateTime>{image.acquired_at.isoformat()}</acquisitionDateTime>
<camera>
<Binning xmlns:a="{_DRAWING}"><a:x>1</a:x><a:y>1</a:y></Binning>
<CameraSpecificInput xmlns:a="{_ARRAYS}">{"".join(camera)}</CameraSpecificInput>
<ExposureTime>{image.exposure_time_seconds!r}</ExposureTime>
<Name>Simulated</Name>
<ReadoutArea xmlns:a="{_DRAWING}"><a:height>{image.height}</a:height><a:width>{image.width}</a:width><a:x>0</a:x><a:y>0</a:y></ReadoutArea>
</camera>
</acquisition>
<core><ApplicationSoftware>EPU</ApplicationSoftware><ApplicationSoftwareVersion>{_VERSION}</ApplicationSoftwareVersion></core>
<gun><AccelerationVoltage>{image.voltage_volt!r}</AccelerationVoltage></gun>
<instrument><ComputerName>SIMULATOR</ComputerName><InstrumentID>1</InstrumentID><InstrumentModel>SIMULATOR</InstrumentModel></instrument>
<optics>
<BeamShift xmlns:a="{_TYPES}"><a:_x>{image.beam_shift[0]!r}</a:_x><a:_y>{image.beam_shift[1]!r}</a:_y></BeamShift>
<Defocus>{image.applied_defocus_meter!r}</Defocus>
<EFTEMOn>true</EFTEMOn>
<EnergyFilter><EnergySelectionSlitInserted>true</EnergySelectionSlitInserted><EnergySelectionSlitWidth>20</EnergySelectionSlitWidth></EnergyFilter>
<TemMagnification><NominalMagnification>{image.magnification}</NominalMagnification></TemMagnification>
</optics>
<stage><Position><A>0</A><B>0</B><X>{image.stage_x_meter!r}</X><Y>{image.stage_y_meter!r}</Y><Z>0</Z></Position></stage>
</microscopeData>
</MicroscopeImage>
"""  # noqa: E501  # elements stand on one line with their children, as a reader of the file wants them


def session_dm(
    *, name: str, session_id: int, started_at: datetime, grid_squares: Sequence[int], output_format: str
) -> str:
    """EpuSession.dm: the session's name, number, start, storage folder and grid squares."""
    squares = "".join(
        f"<b:KeyValuePairOfintSerializedReferenceOfGridSquareXml><b:key>{square}</b:key>"
        f'<b:value xmlns:c="{_COMMON}"><c:FileName>Metadata\\GridSquare_{square}.dm</c:FileName></b:value>'
        "</b:KeyValuePairOfintSerializedReferenceOfGridSquareXml>"
        for square in grid_squares
    )
    start = started_at.isoformat()
    return f"""<EpuSessionXml xmlns="{_EPU}" xmlns:i="{_INSTANCE}" xmlns:z="{_SERIALIZATION}">
<Id xmlns="{_COMMON}">{session_id}</Id>
<ClusteringMode>ClusteringWithImageBeamShift</ClusteringMode>
<ClusteringRadius>1.2E-05</ClusteringRadius>
<DoseFractionsOutputFormat>{escape(output_format)}</DoseFractionsOutputFormat>
<ImageFileFormat>Mrc</ImageFileFormat>
<Name>{escape(name)}</Name>
<Samples><_items><SampleXml>
<Id xmlns="{_COMMON}">{session_id + 1}</Id>
<AtlasId>Z:\\DoseFractions\\{escape(name)}\\Sample1\\Atlas\\Atlas.dm</AtlasId>
<GridGeometry>Square</GridGeometry>
<GridSquares xmlns:a="{_ARRAYS}"><a:m_serializationArray xmlns:b="{_COLLECTIONS}">{squares}</a:m_serializationArray></GridSquares>
<StartDateTime>{start}</StartDateTime>
</SampleXml></_items><_size>1</_size></Samples>
<StartDateTime>{start}</StartDateTime>
<StorageFolders><_items><StorageFolderXml>
<Id xmlns="{_COMMON}">{session_id + 2}</Id><DiscId>1</DiscId><Path>Z:\\DoseFractions</Path>
</StorageFolderXml></_items><_size>1</_size></StorageFolders>
<TiltedAcquisitionEnabled>false</TiltedAcquisitionEnabled>
</EpuSessionXml>
"""  # noqa: E501  # as above


def grid_square_dm(
    *, grid_square: int, image_path: str, stage_x_meter: float, stage_y_meter: float, holes: Mapping[int, EpuHole]
) -> str:
    """Metadata/GridSquare_<id>.dm: where the square is, its image, and its holes by their numbers."""
    targets = "".join(_target(number, hole) for number, hole in holes.items())
    return f"""<GridSquareXml xmlns="{_EPU}" xmlns:i="{_INSTANCE}" xmlns:z="{_SERIALIZATION}">
<Id xmlns="{_COMMON}">{grid_square}</Id>
<AtlasNodeId>{grid_square}</AtlasNodeId>
<GridSquareImagePath>{escape(image_path)}</GridSquareImagePath>
<Position xmlns:a="{_SHARED}"><a:A>0</a:A><a:B>0</a:B><a:X>{stage_x_meter!r}</a:X><a:Y>{stage_y_meter!r}</a:Y><a:Z>0</a:Z></Position>
<Selected>true</Selected>
<State>Complete</State>
<TargetLocationsEfficient xmlns:a="{_ARRAYS}"><a:m_serializationArray xmlns:b="{_COLLECTIONS}">{targets}</a:m_serializationArray></TargetLocationsEfficient>
<Unusable>false</Unusable>
</GridSquareXml>
"""  # noqa: E501  # as above


def _target(number: int, hole: EpuHole) -> str:
    return (
        f"<b:KeyValuePairOfintTargetLocationXml><b:key>{number}</b:key><b:value>"
        f'<Id xmlns="{_COMMON}">{number}</Id><IsNearGridBar>false</IsNearGridBar>'
        f'<PixelCenter xmlns:c="{_DRAWING}"><c:x>{hole.pixel_x!r}</c:x><c:y>{hole.pixel_y!r}</c:y></PixelCenter>'
        f'<PixelWidthHeight xmlns:c="{_DRAWING}"><c:height>30</c:height><c:width>30</c:width></PixelWidthHeight>'
        f'<StagePosition xmlns:c="{_SHARED}"><c:X>{hole.stage_x_meter!r}</c:X><c:Y>{hole.stage_y_meter!r}</c:Y>'
        "</StagePosition></b:value></b:KeyValuePairOfintTargetLocationXml>"
    )


def _custom(key: str, kind: str, value: str) -> str:
    return (
        f'<a:KeyValueOfstringanyType><a:Key>{escape(key)}</a:Key><a:Value xmlns:b="{_SCHEMA}" i:type="b:{kind}">'
        f"{escape(value)}</a:Value></a:KeyValueOfstringanyType>"
    )
