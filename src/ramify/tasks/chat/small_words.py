"""Words and letters that tell languages apart: the small words of each, and letters that few of them have."""

from __future__ import annotations

from collections.abc import Mapping

SMALL_WORDS: Mapping[str, str] = {
    "en": (
        "the of and to in is that it for was with as you are on be this have from or by not but what all were we "
        "when your can there an which their will each about how if up out them then she many some would like into "
        "has more her its who than my i he they me so do does did been where why could please thank yes our us am "
        "don't i'm it's that's can't hello"
    ),
    "de": (
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er "
        "hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor "
        "zur bis mehr durch man ich wir ihr mein dein kann wenn was wo warum danke bitte ja nein gerne sehr hier "
        "habe hast habt seid bist vielen dank meine deine euch guten mir dir"
    ),
    "fr": (
        "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec ou mais "
        "nous vous je tu elle ils cette aux être son sa ses leur comme fait bien tout très aussi été peut où merci "
        "bonjour oui non c'est j'ai d'un d'une qu'il n'est mon ma mes votre notre quoi pourquoi"
    ),
    "es": (
        "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si sin "
        "sobre este ya entre cuando todo esta ser son dos también fue había era muy años hasta desde está mi porque "
        "qué sólo han yo hay vez puede usted gracias hola sí favor nos ellos ella él cómo dónde gusta gustan buenos "
        "buenas días eres soy"
    ),
    "it": (
        "di e il la che in a per un è non una del si della con i le da sono al come più lo ma dei nel alla gli ha "
        "anche o se delle questo su ci mi hanno essere era tra nella dal molto quando cosa perché io tu lui lei noi "
        "voi loro grazie ciao sì prego dove chi tutto fatto suo sua mio l'ho dell' all' un' po' c'è dov'è com'è "
        "piace piacciono sei siamo siete vorrei buongiorno ecco ogni vostro nostro questi quella"
    ),
    "pt": (
        "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem à seu "
        "sua ou ser quando muito há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos "
        "ter seus quem nas me esse eles estão você obrigado obrigada olá sim bom onde porque fazer posso meu minha "
        "são dia fica gosto minhas meus"
    ),
    "nl": (
        "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij of uit nog naar door "
        "over ze hij wordt deze wel geen kan worden meer heeft hebben ik je we jij u mijn wat waar waarom dit die "
        "was had zo dank alstublieft graag hier heel ja nee hoe goed moet kunnen"
    ),
    "sv": (
        "och i att det som en på är av för med den till inte om ett han men var jag från vi så kan när år under "
        "också efter eller nu sin där vid mot ska skulle kommer ut får finns vara hade alla andra mycket än här då "
        "över bli du ni mig dig oss tack hej ja nej vad hur varför snälla min din"
    ),
    "da": (
        "og i at det som en på er af for med den til ikke om et han men var jeg fra vi så kan når år under også "
        "efter eller nu sin der ved mod skal ville kommer ud får findes være havde alle andre meget end her da over "
        "blive du mig dig os tak hej ja nej hvad hvordan hvorfor venligst min din de hun dette blev hvor selv "
        "godt vil lide"
    ),
    "pl": (
        "w i na z do się nie że to jest o jak po co za od dla ale przez przy tak już był była było są tego tym czy "
        "może ich jego jej tylko oraz lub które który która być ma mnie ja ty on ona my wy oni bardzo dziękuję "
        "proszę cześć gdzie dlaczego kiedy także bez pod nad ten ta te można mam jestem dzień dobry masz lubię mój "
        "twój"
    ),
    "cs": (
        "a v se na je že z s do i to o jako za ve pro by ale po od k jsou byl byla bylo jsem nebo ze podle které "
        "který která také při jeho jen když už až aby co tak jak má není být může já ty on ona my vy oni děkuji "
        "prosím ahoj kde proč velmi ano ne bez před však této tento mám máš máme rád ráda dobrý dobré den jste jsme"
    ),
    "tr": (
        "ve bir bu da de için ile çok olarak daha olan gibi en ne kadar sonra var o mi mı ya değil ise her ben sen "
        "biz siz onlar şu ki ama veya hem nasıl neden nerede lütfen teşekkür ederim merhaba evet hayır olduğu oldu "
        "iyi bunu benim sizin size şey"
    ),
    "fi": (
        "ja on ei se että oli hän en ovat kun mutta niin myös kuin mitä tai jos olla sen ole minä sinä me te he "
        "tämä joka mukaan vain jo sekä voi siitä kiitos hei kyllä miksi missä miten hyvin nyt sitten olen olet "
        "ollut hänen minun sinun tämän ovatko"
    ),
    "hu": (
        "a az és hogy nem is egy van ez de volt meg csak már mint ha vagy el még azt lehet több után ezt akkor "
        "nagyon kell ki mert én te ő mi ti ők minden amely aki vissza igen köszönöm kérem szia hol miért hogyan jó "
        "vannak voltak itt ott sem lesz"
    ),
    "ro": (
        "de și în a la cu nu o pe că un este din să se pentru care mai sunt au fost cel prin dar după sau ce ca lui "
        "fi avea când foarte eu tu el ea noi voi ei mulțumesc bună da unde cum acest această aceasta dintre fără "
        "până numai acum am ai are vă rog îmi îți își unui unei ale cele"
    ),
    "ru": (
        "и в не на я что с он а как это по но из у за то все она так его от было бы же для мы вы о они есть к ты "
        "мне уже или если когда был была были её их меня где почему спасибо пожалуйста да нет очень чтобы только "
        "может можно"
    ),
    "uk": (
        "і в не на я що з він а як це по але із у за то все вона так його від було би для ми ви про вони є до ти "
        "мені вже або якщо коли був була були її їх мене де чому дякую будь ласка ні дуже щоб тільки може можна та "
        "й"
    ),
    "bg": (
        "и в не на аз че с той а как това по но от у за то все тя така его беше бе ние вие о те има к ти ми вече "
        "или ако когато са е се да ще си като го ги къде защо благодаря моля много само може който която което"
    ),
}
"""ISO 639-1 code -> small words, separated by spaces."""

LETTERS: Mapping[str, str] = {
    "de": "äöüß",
    "fr": "àâæçéèêëîïôœùûü",
    "es": "áéíñóúü¿¡",
    "it": "àèéìíòóùú",
    "pt": "áâãàçéêíóôõú",
    "nl": "éëïóöü",
    "sv": "åäöé",
    "da": "æøåé",
    "pl": "ąćęłńóśźż",
    "cs": "áčďéěíňóřšťúůýž",
    "tr": "çğıöşü",
    "fi": "äöå",
    "hu": "áéíóöőúüű",
    "ro": "ăâîșțşţ",
    "ru": "ыэёъщй",
    "uk": "іїєґщй",
    "bg": "ъщй",
}
"""ISO 639-1 code -> the letters of the language that English, or for Cyrillic any two of them, do without."""
